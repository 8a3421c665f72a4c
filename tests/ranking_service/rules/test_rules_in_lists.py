"""What each rule does to lists, through the real server: put over the wire, matched by a fake retrieval."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.ranking_service.recommend_harness import Harness, ids, item, running_ranking, themed_catalog, themes
from zhiyin.common.v1.filter_pb2 import FieldIn, Filter, FilterList
from zhiyin.common.v1.item_pb2 import AttributeValue, Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

PROVIDERS = ("north", "south", "east")


def of_provider(items: Sequence[Item]) -> list[Item]:
    """Every item gets a provider, in turn within its theme."""
    for number, one in enumerate(items):
        one.attributes["provider"].string_value = PROVIDERS[number % 3]
    return list(items)


def where(field: str, *values: str) -> Filter:
    return Filter(field_in=FieldIn(field=field, values=[AttributeValue(string_value=value) for value in values]))


MUSIC = where("categories", "Music")
COOKING = where("categories", "Cooking")


async def put(ranking: Harness, rule_id: str, action: str, **fields) -> str:
    rule = pb2.Rule(id=rule_id, action=pb2.RuleAction.Value(f"RULE_ACTION_{action}"), **fields)
    reply = await ranking.stub.PutRule(pb2.PutRuleRequest(catalog="default", rule=rule), timeout=10)
    return reply.consistency_token


async def drop(ranking: Harness, rule_id: str) -> None:
    await ranking.stub.DeleteRule(pb2.DeleteRuleRequest(catalog="default", rule_id=rule_id), timeout=10)


async def shelf(ranking: Harness, *item_ids: str, **fields) -> pb2.SimilarItemsResponse:
    request = pb2.SimilarItemsRequest(catalog="default", item_ids=item_ids, **fields)
    return await ranking.stub.SimilarItems(request, timeout=10)


async def all_pages(ranking: Harness, size: int, **fields) -> list[str]:
    found, token = [], ""
    while True:
        reply = await ranking.recommend(page_size=size, page_token=token, **fields)
        found += ids(reply)
        token = reply.next_page_token
        if not token:
            return found


@pytest.fixture
async def ranking(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running_ranking(tmp_path, *of_provider(themed_catalog())) as harness:
        await harness.act("u", pb2.EVENT_TYPE_LIKE, "film-1", "travel-4")
        yield harness


async def test_boost_and_bury_move_items_by_their_strength(ranking: Harness) -> None:
    plain = ids(await ranking.recommend("u", page_size=46, diversity=0.0))
    first = next(place for place, item_id in enumerate(plain) if item_id.startswith("music"))
    await put(ranking, "more music", "BOOST", filter=MUSIC, strength=0.3)
    raised = ids(await ranking.recommend("u", page_size=46, diversity=0.0))
    await put(ranking, "more music", "BOOST", filter=MUSIC, strength=10.0)
    assert themes(await ranking.recommend("u", page_size=10, diversity=0.0)) == ["music"] * 10
    await put(ranking, "more music", "BURY", filter=MUSIC, strength=10.0)
    buried = themes(await ranking.recommend("u", page_size=46, diversity=0.0))
    assert set(buried[-12:]) == {"music"}
    assert sorted(raised) == sorted(plain)
    assert next(place for place, item_id in enumerate(raised) if item_id.startswith("music")) <= first
    await drop(ranking, "more music")
    assert ids(await ranking.recommend("u", page_size=46, diversity=0.0)) == plain


async def test_a_blocked_item_takes_no_place_and_is_never_shown(ranking: Harness) -> None:
    await put(ranking, "no films", "BLOCK", filter=where("categories", "Films"))
    assert "film" not in themes(await ranking.recommend("u", page_size=40))
    assert "film" not in themes(await ranking.recommend(query_text="movie cinema", page_size=40))
    assert "film" not in themes(await shelf(ranking, "film-2", page_size=20))
    assert len((await shelf(ranking, "film-2", page_size=20)).items) == 20
    # Beside the caller's own filter.
    both = await ranking.recommend("u", page_size=40, filter=where("categories", "Films", "Music"))
    assert set(themes(both)) == {"music"}


async def test_a_block_that_finds_no_room_in_the_filter_holds_all_the_same(ranking: Harness) -> None:
    deep = where("categories", "Films", "Music")
    for _ in range(7):
        deep = Filter(all_of=FilterList(filters=[deep]))
    await put(ranking, "no films", "BLOCK", filter=where("categories", "Films"))
    assert set(themes(await ranking.recommend("u", page_size=40, filter=deep))) == {"music"}


async def test_a_pinned_item_has_its_place_in_every_list(ranking: Harness) -> None:
    await put(ranking, "the house's choice", "PIN", filter=COOKING, position=3)
    reply = await ranking.recommend("u", page_size=10)
    assert themes(reply)[2] == "cooking"
    entry = reply.items[2]
    assert entry.reason.source == pb2.SOURCE_KIND_RULE
    assert entry.reason.text == "Selected for you by the editors"
    assert pb2.SOURCE_KIND_RULE in {score.source for score in entry.sources}
    chinese = await ranking.recommend("u", page_size=10, context=pb2.RecommendContext(locale="zh-CN"))
    assert chinese.items[2].reason.text == "编辑精选推荐"
    assert themes(await shelf(ranking, "film-2", page_size=5))[2] == "cooking"
    assert themes(await ranking.recommend(query_text="movie cinema director", page_size=5))[2] == "cooking"
    for fields in ({"diversity": 1.0}, {"exploration": 0.5}, {"exploration": 1.0}):
        assert themes(await ranking.recommend("u", page_size=10, **fields))[2] == "cooking"


async def test_what_is_pinned_is_the_best_for_this_user_and_stands_once(ranking: Harness) -> None:
    taste = {"query_text": "recipe oven spice kitchen cooking7"}
    await put(ranking, "a", "PIN", filter=COOKING, position=2)
    await put(ranking, "b", "PIN", filter=COOKING, position=4)
    await put(ranking, "c", "PIN", filter=COOKING, position=4)
    reply = await ranking.recommend(page_size=48, **taste)
    assert len(set(ids(reply))) == len(reply.items)
    pinned = [entry.item.id for entry in reply.items if entry.reason.source == pb2.SOURCE_KIND_RULE]
    assert pinned == [ids(reply)[1], ids(reply)[3], ids(reply)[4]]
    assert pinned[0] == "cooking-7"


async def test_a_pin_brings_in_what_no_source_found(tmp_path: Path) -> None:
    few = {"query_candidates": 5, "popular_candidates": 1, "catalog_candidates": 1, "fresh_candidates": 1}
    async with running_ranking(tmp_path, *themed_catalog(), **few) as ranking:
        plain = await ranking.recommend(query_text="movie cinema", page_size=40)
        assert "cooking" not in themes(plain)
        await put(ranking, "kitchen", "PIN", filter=COOKING, position=2)
        reply = await ranking.recommend(query_text="movie cinema", page_size=40)
        # Only what is pinned: the others that retrieval brought in for the choice are no candidates.
        assert [theme for theme in themes(reply) if theme == "cooking"] == ["cooking"]
        assert [i for i in ids(reply) if not i.startswith("cooking")] == ids(plain)


async def test_who_hid_a_pinned_item_never_sees_it(ranking: Harness) -> None:
    await put(ranking, "the one", "PIN", filter=where("id", "cooking-3"), position=1)
    assert ids(await ranking.recommend("u"))[0] == "cooking-3"
    assert "cooking-3" not in ids(await ranking.recommend("u", page_size=46, excluded_item_ids=["cooking-3"]))
    first = await ranking.recommend("u", page_size=5)
    await put(ranking, "second", "PIN", filter=where("id", "music-3"), position=8)
    second = await ranking.recommend("u", page_size=5)
    hidden = await ranking.act("u", pb2.EVENT_TYPE_HIDE, "music-3")
    rest = await ranking.recommend("u", page_size=40, page_token=second.next_page_token, consistency_token=hidden)
    assert "music-3" not in ids(rest)
    assert ids(first) == ids(second)
    await ranking.act("u", pb2.EVENT_TYPE_HIDE, "cooking-3")
    assert "cooking-3" not in ids(await ranking.recommend("u", page_size=46, include_seen=True))


async def test_no_more_than_so_many_of_one_provider_in_a_row(ranking: Harness) -> None:
    provider = {one.id: one.attributes["provider"].string_value for one in of_provider(themed_catalog())}
    await put(ranking, "one voice", "QUOTA", per_field="provider", max_places=1, window=3)
    for fields in ({"user": "u"}, {"query_text": "movie cinema"}, {"user": "u", "exploration": 0.4}):
        found = [provider[i] for i in ids(await ranking.recommend(page_size=20, **fields))]
        assert all(len(set(found[at : at + 3])) == 3 for at in range(len(found) - 2))
    reply = await ranking.recommend("u", page_size=3)
    assert not reply.items[0].item.attributes
    assert "attributes" in ranking.retrieval.searches[-1].read_mask.paths


async def test_a_quota_that_cannot_be_met_ends_no_list(ranking: Harness) -> None:
    plain = await ranking.recommend("u", page_size=46)
    await put(ranking, "few films", "QUOTA", filter=where("categories", "Films", "Travel"), max_places=1, window=10)
    reply = await ranking.recommend("u", page_size=46)
    assert sorted(ids(reply)) == sorted(ids(plain))
    found = [theme in ("film", "travel") for theme in themes(reply)]
    assert sum(found[:10]) == 1
    assert sum(found[:20]) == 2


async def test_a_floor_gives_a_share_of_every_prefix(tmp_path: Path) -> None:
    few = {"query_candidates": 20, "popular_candidates": 1, "catalog_candidates": 1, "fresh_candidates": 1}
    async with running_ranking(tmp_path, *themed_catalog(), **few) as ranking:
        plain = await ranking.recommend(query_text="movie cinema director", page_size=20)
        await put(ranking, "kitchen", "EXPOSURE_FLOOR", filter=COOKING, min_share=0.25)
        reply = await ranking.recommend(query_text="movie cinema director", page_size=20)
        found = [theme == "cooking" for theme in themes(reply)]
        assert all(sum(found[:n]) >= math.floor(n / 4) for n in range(21))
        others = [i for i in ids(plain) if not i.startswith("cooking")]
        assert [i for i in ids(reply) if not i.startswith("cooking")] == others[: 20 - sum(found)]
        assert all(entry.reason.text and entry.sources for entry in reply.items)
        everything = await all_pages(ranking, 7, query_text="movie cinema director")
        assert set(ids(plain)) <= set(everything)


async def test_of_near_duplicates_the_best_is_shown(tmp_path: Path) -> None:
    twins = [item(f"twin-{n}", "movie cinema director actor again", "Films") for n in range(6)]
    async with running_ranking(tmp_path, *themed_catalog(), *twins) as ranking:
        plain = ids(await ranking.recommend(query_text="movie cinema", page_size=54, diversity=0.0))
        await put(ranking, "once", "COLLAPSE", similarity=1.0)
        reply = await ranking.recommend(query_text="movie cinema", page_size=54, diversity=0.0)
        assert [i for i in ids(reply) if i.startswith("twin")] == [next(i for i in plain if i.startswith("twin"))]
        assert [i for i in plain if not i.startswith("twin")] == [i for i in ids(reply) if not i.startswith("twin")]
        await put(ranking, "once", "COLLAPSE", similarity=1.0, filter=MUSIC)
        again = ids(await ranking.recommend(query_text="movie cinema", page_size=54, diversity=0.0))
        assert sum(i.startswith("twin") for i in again) == 6


@pytest.mark.parametrize("kept", [True, False], ids=["list kept", "list made anew"])
async def test_a_duplicate_of_an_earlier_page_never_follows(tmp_path: Path, kept: bool) -> None:
    twins = [item(f"twin-{n}", "movie cinema director actor again", "Films") for n in range(6)]
    settings = {} if kept else {"list_store_bytes": 0}
    async with running_ranking(tmp_path, *themed_catalog(), *twins, **settings) as ranking:
        await put(ranking, "once", "COLLAPSE", similarity=1.0)
        asked = {"query_text": "movie cinema director actor again", "page_size": 8}
        first = await ranking.recommend("u", **asked)
        shown = [i for i in ids(first) if i.startswith("twin")]
        assert len(shown) == 1
        # Bought: no candidate any more, and yet its twins must not come.
        token = await ranking.act("u", pb2.EVENT_TYPE_PURCHASE, shown[0])
        rest = []
        while first.next_page_token:
            page = {**asked, "page_token": first.next_page_token, "consistency_token": token}
            first = await ranking.recommend("u", **page)
            rest += ids(first)
        assert len(rest) >= 30
        assert not [i for i in rest if i.startswith("twin")]


async def test_nobody_is_shown_an_item_more_often_than_the_cap(ranking: Harness) -> None:
    top = ids(await ranking.recommend("u"))[:2]
    await put(ranking, "not again", "FREQUENCY_CAP", max_impressions=2)
    await ranking.act("u", pb2.EVENT_TYPE_IMPRESSION, *top)
    assert set(top) <= set(ids(await ranking.recommend("u", page_size=46)))
    token = await ranking.act("u", pb2.EVENT_TYPE_IMPRESSION, top[0])
    after = ids(await ranking.recommend("u", page_size=46, consistency_token=token))
    assert top[0] not in after
    assert top[1] in after
    assert top[0] in ranking.retrieval.searches[-1].exclude_item_ids
    assert top[0] in ids(await ranking.recommend("somebody else", page_size=48))
    await put(ranking, "not again", "FREQUENCY_CAP", max_impressions=2, filter=MUSIC)
    assert top[0] in ids(await ranking.recommend("u", page_size=46))
    await put(ranking, "not again", "FREQUENCY_CAP", max_impressions=2, filter=where("id", *top))
    capped = ids(await ranking.recommend("u", page_size=46))
    assert top[0] not in capped
    assert top[1] in capped


async def test_a_cap_ends_with_its_period(ranking: Harness) -> None:
    top = ids(await ranking.recommend("u"))[0]
    await put(ranking, "not again", "FREQUENCY_CAP", max_impressions=1, period=Duration(seconds=3_600))
    context = pb2.RecommendContext()
    await ranking.act("u", pb2.EVENT_TYPE_IMPRESSION, top)
    assert top not in ids(await ranking.recommend("u", page_size=46))
    context.time.GetCurrentTime()
    context.time.seconds += 3_590
    assert top not in ids(await ranking.recommend("u", page_size=46, context=context))
    context.time.seconds += 20
    assert top in ids(await ranking.recommend("u", page_size=46, context=context))


async def test_only_rules_in_force_at_the_moment_of_the_list_count(ranking: Harness) -> None:
    context = pb2.RecommendContext()
    context.time.GetCurrentTime()
    until, start = pb2.Rule().active_until, pb2.Rule().active_from
    start.seconds, until.seconds = context.time.seconds + 100, context.time.seconds + 200
    await put(
        ranking, "later", "PIN", filter=where("id", "cooking-3"), position=1, active_from=start, active_until=until
    )
    first = []
    for _ in range(3):
        first.append(ids(await ranking.recommend("u", context=context))[0] == "cooking-3")
        context.time.seconds += 101
    assert first == [False, True, False]


@pytest.mark.parametrize("kept", [True, False], ids=["list kept", "list made anew"])
async def test_pages_of_a_list_with_every_rule_are_one_list(tmp_path: Path, kept: bool) -> None:
    settings = {} if kept else {"list_store_bytes": 0}
    async with running_ranking(tmp_path, *of_provider(themed_catalog()), **settings) as ranking:
        await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1", "travel-4")
        await put(ranking, "a", "BOOST", filter=MUSIC)
        await put(ranking, "b", "BLOCK", filter=where("id", "film-3"))
        await put(ranking, "c", "PIN", filter=COOKING, position=12)
        await put(ranking, "d", "PIN", filter=where("categories", "Travel"), position=1)
        await put(ranking, "e", "QUOTA", per_field="categories", max_places=2, window=4)
        await put(ranking, "f", "QUOTA", per_field="provider", max_places=3, window=6)
        await put(ranking, "g", "EXPOSURE_FLOOR", filter=where("attributes.provider", "east"), min_share=0.3)
        await put(ranking, "h", "FREQUENCY_CAP", max_impressions=1)
        await put(ranking, "i", "COLLAPSE", similarity=0.99)
        for fields in ({}, {"exploration": 0.2}):
            first = await ranking.recommend("u", page_size=7, **fields)
            whole = ids(first)
            # Saying what was shown changes nothing of the list that it was shown of.
            await ranking.act("u", pb2.EVENT_TYPE_IMPRESSION, *whole)
            token = first.next_page_token
            pages = []
            while token:
                again = await ranking.recommend("u", page_size=7, page_token=token, **fields)
                pages += ids(again)
                token = again.next_page_token
            big = await ranking.recommend("u", page_size=40, page_token=first.next_page_token, **fields)
            assert pages[:40] == ids(big)
            assert len(set(whole + pages)) == len(whole + pages)
            assert (whole + pages)[11].startswith("cooking")
            east = [int(i.split("-")[1]) % 3 == 2 for i in whole + pages]
            assert all(
                sum(east[:n]) >= math.floor(0.3 * n + 1e-9) or sum(east) == sum(east[:n]) for n in range(len(east))
            )


async def test_a_kept_list_keeps_its_rules(ranking: Harness) -> None:
    first = await ranking.recommend("u", page_size=10)
    whole = ids(await ranking.recommend("u", page_size=30))
    await put(ranking, "later", "PIN", filter=where("id", "cooking-3"), position=12)
    second = await ranking.recommend("u", page_size=20, page_token=first.next_page_token)
    assert ids(first) + ids(second) == whole


async def test_a_rule_that_no_longer_fits_takes_no_list_and_no_other_rule_with_it(ranking: Harness) -> None:
    await put(ranking, "old block", "BLOCK", filter=where("attributes.age", "adult"))
    await put(ranking, "old boost", "BOOST", filter=where("attributes.age", "adult"))
    await put(ranking, "good block", "BLOCK", filter=where("categories", "Films"))
    await put(ranking, "good pin", "PIN", filter=where("id", "cooking-3"), position=1)
    ranking.retrieval.refused_field = "attributes.age"
    reply = await ranking.recommend("u", page_size=40)
    assert ids(reply)[0] == "cooking-3"
    assert "film" not in themes(reply)
    told = [d for d in reply.degraded if d.component == "rules"]
    assert len(told) == 1
    assert "old block, old boost" in told[0].message
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await ranking.recommend("u", filter=Filter(all_of=FilterList(filters=[where("attributes.age", "x")])))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_rerank_orders_what_the_caller_chose_without_rules(ranking: Harness) -> None:
    await put(ranking, "no films", "BLOCK", filter=where("categories", "Films"))
    await put(ranking, "music first", "PIN", filter=MUSIC, position=1)
    candidates = [
        pb2.RerankCandidate(item_id=i, score=s) for i, s in (("film-1", 2.0), ("film-2", 1.0), ("music-1", 0.0))
    ]
    reply = await ranking.stub.Rerank(pb2.RerankRequest(catalog="default", candidates=candidates, diversity=0.0))
    assert [entry.item_id for entry in reply.items] == ["film-1", "film-2", "music-1"]


async def test_without_rules_nothing_more_is_asked_of_retrieval(ranking: Harness) -> None:
    await ranking.recommend("u")
    asked = ranking.retrieval.searches[-1]
    assert not asked.labels
    assert not asked.HasField("filter")
    assert "attributes" not in asked.read_mask.paths


async def test_not_interested_takes_the_item_for_good_and_what_is_like_it_down(ranking: Harness) -> None:
    before = await ranking.recommend("u", page_size=10)
    unwanted = next(i for i in ids(before) if i.startswith("film"))
    token = await ranking.act("u", pb2.EVENT_TYPE_DISLIKE, unwanted)
    after = await ranking.recommend("u", page_size=10, consistency_token=token)
    assert unwanted not in ids(after)
    assert themes(after).count("film") < themes(before).count("film")
    await ranking.act("u", pb2.EVENT_TYPE_LIKE, unwanted)
    for fields in ({}, {"include_seen": True}, {"query_text": "movie cinema"}, {"exploration": 1.0}):
        assert unwanted not in ids(await ranking.recommend("u", page_size=48, **fields))
    assert unwanted in ids(await ranking.recommend("somebody else", page_size=48))
