// The whole path from Node: a catalogue, items, an event, a list that reflects it, the next page, and two errors
// read properly.
//
//   npm ci && node quickstart.mjs            # against `zhiyin up` on its default ports
//   ZHIYIN_RETRIEVAL_ADDRESS=... ZHIYIN_RANKING_ADDRESS=... node quickstart.mjs
import assert from "node:assert/strict";
import { connect, ZhiyinError } from "./zhiyin.mjs";

const catalog = "node-quickstart";
const { retrieval, ranking } = connect({
  retrieval: process.env.ZHIYIN_RETRIEVAL_ADDRESS,
  ranking: process.env.ZHIYIN_RANKING_ADDRESS,
});

const items = [
  ["film-arrival", "Arrival", "Twelve alien ships land and a linguist is asked to talk to them.", "film"],
  ["film-interstellar", "Interstellar", "A pilot flies through a wormhole to look for a new home for mankind.", "film"],
  ["film-martian", "The Martian", "An astronaut left behind on Mars grows potatoes until he can come home.", "film"],
  ["book-bread", "The Science of Bread", "Gluten, fermentation and steam: six loaves, each with one thing changed.", "book"],
  ["book-trail", "Walking the W Trek", "Five days in Patagonia: what to pack and what to leave at home.", "book"],
].map(([id, title, text, category]) => ({ id, title, text, categories: [category], language: "en" }));

await retrieval.CreateCatalog({ catalog: { name: catalog } });
try {
  await main();
} finally {
  await retrieval.DropCatalog({ catalog });
  retrieval.close();
  ranking.close();
}

async function main() {
  const written = await retrieval.UpsertItems({ catalog, items });
  console.log(`upserted ${written.results.length} items`);

  const event = {
    event_id: `node-${Date.now()}`,
    user_id: "node-user",
    type: "EVENT_TYPE_FINISH",
    item_id: "film-interstellar",
  };
  const recorded = await ranking.RecordEvents({ catalog, events: [event] });
  console.log(`recorded ${recorded.recorded_count} event`);

  // The token makes the list reflect the event, whichever replica answers.
  const request = { catalog, user_id: "node-user", page_size: 2, consistency_token: recorded.consistency_token };
  const first = await ranking.Recommend(request);
  show("first page", first);
  const second = await ranking.Recommend({ ...request, page_token: first.next_page_token });
  show("next page", second);
  const ids = [...first.items, ...second.items].map((entry) => entry.item.id);
  assert.equal(new Set(ids).size, ids.length, "a page repeats an item");
  assert.ok(!ids.includes("film-interstellar"), "a finished film came back");

  const wrong = [{ id: "" }, { id: "x".repeat(300), title: "an id that is too long" }];
  const refused = await failure(retrieval.UpsertItems({ catalog, items: wrong }));
  console.log(`refused: ${refused.status} ${refused.reason}`);
  for (const { field, description } of refused.violations) console.log(`  ${field}: ${description}`);
  assert.ok(refused.violations.length >= 2, "not all violations are listed");

  const late = await failure(ranking.Recommend(request, { deadlineMs: 0 }));
  console.log(`too late: ${late.status}`);
  assert.equal(late.status, "DEADLINE_EXCEEDED");

  await ranking.DeleteUser({ catalog, user_id: "node-user" });
}

function show(title, response) {
  console.log(`${title}:`);
  for (const { rank, item, score, reason } of response.items) {
    console.log(`  ${rank}. ${item.title} (${score.toFixed(2)}) ${reason.text}`);
  }
}

async function failure(call) {
  const error = await call.then(
    () => assert.fail("the call should have failed"),
    (reason) => reason,
  );
  assert.ok(error instanceof ZhiyinError, error);
  return error;
}
