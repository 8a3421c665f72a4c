"""`MemoryCatalog` against a real retrieval service on the same items, vectors and requests: not to be told apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from numpy.typing import NDArray

from ranking_service.search_request import RANKING_FIELDS, created_since
from retrieval_service.item import Item as RetrievalItem
from service_runtime.errors import NotFound
from tests.retrieval_service.fake_encoder_server import embed
from tests.retrieval_service.retrieval_harness import Retrieval, item, running_retrieval
from tests.retrieval_service.space_steps import FINGERPRINT, SIZE, SPACE, create, linear, publish, put, wire_vector
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin_offline.evaluation.memory_catalog import SEMANTIC, MemoryCatalog, Space, semantic_space

COUNT, OLDEST, DAY = 60, 1_700_000_000, 86_400
WORDS = ("red", "blue", "film", "song", "travel", "course", "game", "news", "shoe", "电影", "音乐")


@dataclass
class Both:
    """The real service and the catalogue in memory."""

    real: Retrieval
    memory: MemoryCatalog
    version: int

    async def same(self, request: pb.SearchRequest) -> pb.SearchResponse:
        """Asks both and compares everything that ranking reads. The real answer."""
        real, mine = await self.real.stub.Search(request, timeout=20), await self.memory.search(request)
        assert [shown(entry) for entry in mine.items] == [shown(entry) for entry in real.items]
        assert list(mine.hydrated_indices) == list(real.hydrated_indices)
        assert list(mine.missing_item_ids) == list(real.missing_item_ids)
        assert list(mine.filtered_item_ids) == list(real.filtered_item_ids)
        assert [result.name for result in mine.results] == [result.name for result in real.results]
        for own, other in zip(mine.results, real.results, strict=True):
            assert list(own.item_indices) == list(other.item_indices), own.name
            assert np.allclose(own.scores, other.scores, atol=1e-3), own.name
            assert np.allclose(own.all_scores, other.all_scores, atol=1e-3, equal_nan=True), own.name
        for own, other in ((mine.item_vectors, real.item_vectors), (mine.query_vectors, real.query_vectors)):
            assert (own.rows, own.dimensions, own.dtype) == (other.rows, other.dimensions, other.dtype)
            assert own.space_fingerprint == other.space_fingerprint
            assert np.allclose(np.frombuffer(own.data, "<f2"), np.frombuffer(other.data, "<f2"), atol=2e-3)
        used = {query.space or SEMANTIC for query in request.queries} | {request.vectors_space} - {""}
        assert {name: mine.space_versions[name] for name in used} == {name: real.space_versions[name] for name in used}
        return real


def shown(entry: Item) -> Item:
    """What ranking reads of an item; the count of its writes is the real service's own."""
    out = Item()
    out.CopyFrom(entry)
    out.revision = 0
    return out


def catalogue() -> list[Item]:
    random = np.random.default_rng(2)
    made = []
    for number in range(COUNT):
        words = " ".join(random.choice(WORDS, 3))
        entry = item(f"i{number:02d}" if number % 3 else f"物品{number}", f"{words} {number}", language="en")
        entry.text = f"a text about {words}"
        entry.categories.extend(random.choice(WORDS[:4], 2, replace=False).tolist())
        entry.prior = float(number % 10) / 10
        entry.created_at.FromSeconds(OLDEST + int(random.integers(100)) * DAY)
        entry.attributes["price"].number_value = 1.0
        made.append(entry)
    # Two that nothing but their ids tells apart: equal scores, in the order of the ids.
    for name in ("twin-b", "twin-a"):
        made.append(item(name, "twin red film", text="the same words", language="en", prior=0.5))
        made[-1].created_at.FromSeconds(OLDEST)
    return made


def raw_vectors(items: list[Item]) -> NDArray[np.float32]:
    return np.stack([embed(RetrievalItem(entry.id, entry.title, entry.text).passage) for entry in items])


async def both(real: Retrieval, *, derived: bool) -> Both:
    """The same catalogue in both, with a pushed space in which some items have no vector, or a derived one."""
    items = catalogue()
    await real.upsert(*items)
    raw = raw_vectors(items)
    semantic = semantic_space(raw, real.encoder.fingerprint)
    random = np.random.default_rng(3)
    rows = random.standard_normal((len(items), SIZE)).astype(np.float32)
    own = random.random(len(items)) < 0.7
    if derived:
        weights, bias = linear()
        version = await create(real, projection=weights, bias=bias, source_mean=semantic.mean)
        rows[~own] = semantic.rows[~own] @ weights.T + bias
    else:
        version = await create(real)
        rows[~own] = 0.0
    await put(real, version, {entry.id: rows[n] for n, entry in enumerate(items) if own[n]})
    version = await publish(real, version)
    pushed = Space(
        rows, version.version, FINGERPRINT, normalize=False, known=np.full(len(items), True) if derived else own
    )
    return Both(real, MemoryCatalog(items, {SEMANTIC: semantic, SPACE: pushed}), version.version)


def any_request(random: np.random.Generator, ids: list[str], fingerprint: str, version: int) -> pb.SearchRequest:
    """A request as ranking could make it, of every part something."""

    def some(count: int) -> list[str]:
        return random.choice([*ids, "nobody-1", "nobody-2"], int(random.integers(count + 1)), replace=False).tolist()

    request = pb.SearchRequest(
        catalog="default",
        hydrate_item_ids=some(20),
        exclude_item_ids=some(15),
        read_mask=FieldMask(paths=RANKING_FIELDS),
    )
    if random.random() < 0.3:
        request.filter.CopyFrom(created_since(OLDEST + float(random.integers(60)) * DAY))
    if random.random() < 0.8:
        request.vectors_space = SEMANTIC
    for number in range(int(random.integers(1, 5))):
        query = request.queries.add(name=f"q{number}", limit=int(random.choice([0, 1, 7, 30, 200])))
        query.score_all = bool(random.random() < 0.5)
        kind = random.random()
        if kind < 0.3:
            query.vector.CopyFrom(wire_vector(embed(" ".join(random.choice(WORDS, 3))), fingerprint))
        elif kind < 0.6:
            query.space, query.space_version = SPACE, version
            query.vector.CopyFrom(wire_vector(3 * random.standard_normal(SIZE), FINGERPRINT))
        else:
            named = some(8) or [ids[0]]
            for place, item_id in enumerate(named):
                query.examples.items.add(item_id=item_id, weight=1.0 if place == 0 else float(random.normal(0.4, 0.5)))
        if random.random() < 0.3:
            query.filter.CopyFrom(created_since(OLDEST + float(random.integers(100)) * DAY))
    return request


@pytest.mark.parametrize("derived", [False, True], ids=["pushed", "derived"])
async def test_any_request_is_answered_as_the_service_answers_it(tmp_path: Path, derived: bool) -> None:
    async with running_retrieval(tmp_path) as real:
        pair = await both(real, derived=derived)
        ids = [entry.id for entry in catalogue()]
        random = np.random.default_rng(11)
        hits, unscored = 0, 0
        for _ in range(80):
            reply = await pair.same(any_request(random, ids, real.encoder.fingerprint, pair.version))
            hits += sum(len(result.item_indices) for result in reply.results)
            unscored += sum(int(np.isnan(result.all_scores).sum()) for result in reply.results)
        assert hits > 1_000
        assert (unscored > 0) == (not derived)  # items without a vector were among those asked for


async def test_equal_scores_are_in_the_order_of_ids_also_where_the_limit_cuts(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path) as real:
        pair = await both(real, derived=False)
        for limit in (1, 2, 10):
            request = pb.SearchRequest(catalog="default", read_mask=FieldMask(paths=RANKING_FIELDS))
            vector = wire_vector(embed("twin red film the same words"), real.encoder.fingerprint)
            request.queries.add(name="twins", limit=limit, vector=vector)
            reply = await pair.same(request)
            assert [reply.items[i].id for i in reply.results[0].item_indices][:2] == ["twin-a", "twin-b"][:limit]


async def test_examples_that_nobody_knows_find_nothing_and_score_nothing(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path) as real:
        pair = await both(real, derived=False)
        request = pb.SearchRequest(
            catalog="default",
            hydrate_item_ids=["i01"],
            vectors_space=SEMANTIC,
            read_mask=FieldMask(paths=RANKING_FIELDS),
        )
        query = request.queries.add(name="unknown", limit=5, score_all=True)
        query.examples.items.add(item_id="nobody", weight=1.0)
        reply = await pair.same(request)
        assert not reply.results[0].item_indices
        assert np.isnan(reply.results[0].all_scores).all()


async def test_items_and_their_pages_come_as_from_the_service(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path) as real:
        pair = await both(real, derived=False)
        since = created_since(OLDEST + 40 * DAY)
        for condition in (None, since):
            mine, token = await pair.memory.list_items("default", condition, "", ["id"])
            theirs = await real.stub.ListItems(
                pb.ListItemsRequest(
                    catalog="default", page_size=1000, filter=condition, read_mask=FieldMask(paths=["id", "created_at"])
                )
            )
            assert [entry.id for entry in mine] == [entry.id for entry in theirs.items]
            assert (token, theirs.next_page_token) == ("", "")
        found = await pair.memory.get_items("default", ["i01", "nobody", "twin-a"], ["id", "text"])
        assert set(found) == {"i01", "twin-a"}
        assert found["i01"].text.startswith("a text about")


async def test_a_space_that_is_not_there_is_told() -> None:
    items = catalogue()
    memory = MemoryCatalog(items, {SEMANTIC: semantic_space(raw_vectors(items), "f")})
    request = pb.SearchRequest(catalog="default")
    request.queries.add(name="sequence", space=SPACE, vector=wire_vector(np.ones(SIZE)))
    with pytest.raises(NotFound):
        await memory.search(request)


async def test_pages_of_a_large_catalogue_hold_every_item_once_in_the_order_of_ids() -> None:
    items = [Item(id=f"i{number}") for number in np.random.default_rng(0).permutation(2_300)]
    memory = MemoryCatalog(items, {SEMANTIC: semantic_space(np.zeros((2_300, 4), np.float32), "f")})
    read, token = [], ""
    for _ in range(3):
        page, token = await memory.list_items("default", None, token, ["id"])
        read += [entry.id for entry in page]
    assert token == ""
    assert read == sorted(entry.id for entry in items)
