"""Every call of both clients against the real services: what goes in, what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zhiyin_client import (
    AnonymousProfile,
    Event,
    EventType,
    FieldIn,
    Filter,
    Item,
    Label,
    Query,
    Rule,
    RuleAction,
    User,
    attribute,
    attributes,
)

LIKE, HIDE = EventType.EVENT_TYPE_LIKE, EventType.EVENT_TYPE_HIDE


def shelf(count: int) -> list[Item]:
    """Items with texts that have no word in common."""
    return [
        Item(id=f"i{n:02}", title=f"w{3 * n} w{3 * n + 1} w{3 * n + 2}", attributes=attributes({"even": n % 2 == 0}))
        for n in range(count)
    ]


EVEN = Filter(field_in=FieldIn(field="attributes.even", values=[attribute(True)]))


async def test_items_are_written_read_listed_and_deleted(client: Any) -> None:
    written = await client.upsert_items(shelf(5))
    assert [result.created for result in written.results] == [True] * 5
    changed = await client.upsert_items([Item(id="i00", title="w9")], update_mask=["title"])
    assert not changed.results[0].created

    read = await client.get_items(["i03", "no", "i00"])
    assert [item.id for item in read] == ["i03", "i00"]
    assert read[1].title == "w9"
    assert read[1].attributes["even"].bool_value
    (bare,) = await client.get_items(["i03"], read_mask=["title"])
    assert (bare.id, bool(bare.attributes)) == ("i03", False)

    assert [item.id async for item in client.list_items(page_size=2)] == [f"i0{n}" for n in range(5)]
    assert [item.id async for item in client.list_items(page_size=1, filter=EVEN)] == ["i00", "i02", "i04"]

    gone = await client.delete_items(["i00", "no"])
    assert (gone.deleted_count, list(gone.missing_item_ids)) == (1, ["no"])
    assert await client.drop_catalog() == 4


async def test_vectors_are_arrays_both_ways(client: Any) -> None:
    items = shelf(6)
    await client.upsert_items(items)
    made = await client.embed([item.title for item in items], role="passage")
    assert (made.vectors.shape, made.vectors.dtype) == ((6, 16), np.float32)
    np.testing.assert_allclose(np.linalg.norm(made.vectors, axis=1), 1.0, atol=1e-5)
    assert made.token_counts.tolist() == [3] * 6
    assert not made.truncated.any()
    halved = await client.embed([item.title for item in items], role="passage", float16=True)
    assert halved.vectors.dtype == np.float32
    np.testing.assert_allclose(halved.vectors, made.vectors, atol=1e-3)

    for array in (made.vectors, made.vectors.astype(np.float16), made.vectors.tolist()):
        found = await client.search(array, limit=3, vectors_space="semantic", read_mask=["title"])
        assert [hits.ids[0] for hits in found.hits] == [item.id for item in items]
        assert [hits.items[0].title for hits in found.hits] == [item.title for item in items]
        for hits, query in zip(found.hits, found.query_vectors, strict=True):
            assert (hits.scores.shape, hits.scores.dtype) == ((3,), np.float32)
            assert hits.scores[0] == hits.scores.max()
            # What the server scored is the product of the two vectors that it sends along.
            np.testing.assert_allclose(found.item_vectors[hits.rows] @ query, hits.scores, atol=5e-3)


async def test_searches_by_text_by_likeness_and_with_settings_of_their_own(client: Any) -> None:
    await client.upsert_items(shelf(8))
    assert (await client.search("w6 w7 w8", limit=1)).hits[0].ids == ["i02"]
    assert [hits.ids for hits in (await client.search(["w6 w7 w8", "w0 w1 w2"], limit=1)).hits] == [["i02"], ["i00"]]
    found = await client.search(
        [
            Query(text="w9 w10 w11", name="words", limit=2, exact=True),
            Query(like=["i04"], name="like"),
            Query(like={"i04": 1.0, "i05": -0.5}, filter=EVEN),
        ],
        limit=3,
        exclude_item_ids=["i07"],
    )
    words, like, weighted = found.hits
    assert [hits.name for hits in found.hits] == ["words", "like", "q2"]
    assert (words.ids[0], len(words.ids), len(like.ids)) == ("i03", 2, 3)
    assert "i04" not in like.ids
    assert set(weighted.ids) <= {"i00", "i02", "i06"}
    assert found.item_vectors is None
    assert {item.id for item in found.items} == {*words.ids, *like.ids, *weighted.ids} - {"i07"}


@pytest.mark.parametrize("queries", [Query(), Query(text="w1", like=["i1"]), ["text", 1], [b"text"], np.zeros((2, 0))])
async def test_a_query_that_makes_no_sense_is_not_sent(client: Any, queries: Any) -> None:
    with pytest.raises(ValueError):
        await client.search(queries)


async def test_labels(client: Any) -> None:
    answer = await client.classify(["w1 w2", "w7"], {"one": "w1 w2", "seven": ["w7", "w8"]}, max_labels=1)
    assert [c.labels[0].id for c in answer.classifications] == ["one", "seven"]
    messages = [Label(id="one", descriptions=["w1 w2"]), Label(id="seven", descriptions=["w7"])]
    same = await client.classify("w7", messages)
    assert same.classifications[0].labels[0].id == "seven"
    assert (await client.model_info()).dimensions == 16


async def test_a_session_reads_its_own_writes(client: Any) -> None:
    session = client.session()
    await session.upsert_items(shelf(12))
    assert session.written.sequence > 0
    for _ in range(5):
        shown = (await session.recommend("ada", page_size=5)).items[0].item.id
        before = session.written.consistency_token
        await session.record_events(Event(user_id="ada", type=HIDE, item_id=shown))
        assert session.written.consistency_token not in ("", before)
        after = await session.recommend("ada", page_size=12)
        assert shown not in {entry.item.id for entry in after.items}
    assert client.written is None
    elsewhere = client.session(session.written)
    assert elsewhere.written.consistency_token == session.written.consistency_token
    assert "i11" in (await elsewhere.search("w33 w34 w35")).hits[0].ids


async def test_a_list_is_paged_without_holes(client: Any) -> None:
    await client.upsert_items(shelf(30))
    session = client.session()
    whole = [entry async for entry in session.recommend_all("ada", page_size=4)]
    assert [entry.rank for entry in whole] == list(range(1, len(whole) + 1))
    ids = [entry.item.id for entry in whole]
    assert len(set(ids)) == len(ids) > 8
    first = await session.recommend("ada", page_size=4)
    second = await session.recommend("ada", page_size=4, page_token=first.next_page_token)
    by_hand = [entry.item.id for entry in [*first.items, *second.items]]
    for limit in (0, 3, 4, 6):
        some = [entry.item.id async for entry in session.recommend_all("ada", page_size=4, limit=limit)]
        assert len(some) == limit
        assert some == by_hand[:limit] == ids[:limit]


async def test_options_of_a_list_reach_the_service(client: Any) -> None:
    await client.upsert_items(shelf(12))
    options = {"filter": EVEN, "page_size": 3, "excluded_item_ids": ["i02"], "item_mask": ["title"]}
    for told in ({"profile": "w12 w13 w14"}, {"anonymous": AnonymousProfile(text="w12 w13 w14")}):
        answer = await client.recommend(**told, **options, diversity=0.0, explain=True)
        assert answer.items[0].item.id == "i04"
        assert "i02" not in {entry.item.id for entry in answer.items}
        assert all(int(entry.item.id[1:]) % 2 == 0 and not entry.item.categories for entry in answer.items)
        assert answer.items[0].reason.text
    bare = await client.recommend(profile="w12", explain=False, diversity_method="none")
    assert not bare.items[0].reason.text
    similar = await client.similar_items("i04", **options)
    assert {entry.item.id for entry in similar.items} <= {"i00", "i06", "i08", "i10"}
    with pytest.raises(ValueError, match="not for both"):
        await client.recommend("ada", profile="w1")
    with pytest.raises(TypeError, match="divversity"):
        await client.recommend("ada", divversity=0.3)


async def test_candidates_of_ones_own_are_reranked_with_ones_own_vectors(client: Any) -> None:
    scores = {"a": 3.0, "b": 2.9, "c": 1.0}
    vectors = np.array([[1, 0, 0], [1, 0.01, 0], [0, 0, 1]])
    plain = await client.rerank(scores, vectors, diversity=0.0)
    assert [entry.item_id for entry in plain.items] == ["a", "b", "c"]
    varied = await client.rerank(list(scores.items()), vectors, diversity=1.0, diversity_method="mmr")
    assert [entry.item_id for entry in varied.items] == ["a", "c", "b"]
    with pytest.raises(ValueError, match="3 candidates and 2 vectors"):
        await client.rerank(scores, vectors[:2])


async def test_users_rules_and_explanations(client: Any) -> None:
    await client.upsert_items(shelf(12))
    session = client.session()
    await session.upsert_users(User(id="ada", profile="w12 w13 w14", attributes=attributes({"age": 36})))
    await session.upsert_users([User(id="ada", profile="w15 w16 w17")], update_mask=["profile"])
    user = await session.get_user("ada")
    assert (user.profile, user.attributes["age"].number_value) == ("w15 w16 w17", 36)

    block = Filter(field_in=FieldIn(field="id", values=[attribute("i05")]))
    for name in ("b", "a", "c"):
        kept = await session.put_rule(Rule(id=name, action=RuleAction.RULE_ACTION_BLOCK, filter=block))
        assert kept.id == name
    assert [rule.id async for rule in session.list_rules(page_size=2)] == ["a", "b", "c"]
    answer = await session.recommend("ada")
    assert "i05" not in {entry.item.id for entry in answer.items}
    assert [await session.delete_rule(name) for name in ("a", "b", "c", "c")] == [True, True, True, False]
    answer = await session.recommend("ada")
    assert answer.items[0].item.id == "i05"

    explained = await client.explain(answer.items[0].attribution_token, reproduce=True)
    assert explained.item.item.id == "i05"
    assert explained.reproduction.identical

    recorded = await session.record_events([Event(user_id="ada", type=LIKE, item_id="i01")] * 2)
    assert recorded.recorded_count == 2, "events without an id are different ones"
    erased = await client.delete_user("ada")
    assert (erased.existed, erased.deleted_event_count) == (True, 2)


async def test_a_client_of_one_catalogue_makes_one_of_another(client: Any) -> None:
    await client.upsert_items(shelf(2))
    other = client.in_catalog(f"{client.catalog}-other")
    await other.create_catalog(display_name="Other", max_items=10)
    await other.create_catalog(display_name="Other", max_items=10)
    assert [item async for item in other.list_items()] == []
    assert len([item async for item in client.list_items()]) == 2
