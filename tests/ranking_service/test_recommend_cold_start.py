"""Lists for those of whom little or nothing is known, over a real server: each must look right to a person."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from tests.ranking_service.recommend_harness import Harness, ids, item, running_ranking, themed_catalog, themes
from zhiyin.common.v1.filter_pb2 import FieldIn, Filter
from zhiyin.common.v1.item_pb2 import AttributeValue
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2


@pytest.fixture
async def ranking(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running_ranking(tmp_path, *themed_catalog()) as harness:
        yield harness


async def test_nobody_and_no_events_gives_an_even_list(ranking: Harness) -> None:
    reply = await ranking.recommend()
    assert len(reply.items) == 10
    assert not reply.degraded
    counts = [themes(reply).count(theme) for theme in ("film", "music", "travel", "cooking")]
    assert min(counts) >= 2
    assert {entry.reason.source for entry in reply.items} == {pb2.SOURCE_KIND_CATALOG}


async def test_nobody_gets_the_best_of_each_category_by_prior(ranking: Harness) -> None:
    ranking.retrieval.put(item("film-best", "movie cinema", "Films", prior=0.95))
    reply = await ranking.recommend(diversity=0)
    assert "film-best" in ids(reply)[:4]


async def test_nobody_gets_what_is_popular_first_once_there_are_events(ranking: Harness) -> None:
    for user in range(5):
        await ranking.act(f"someone-{user}", pb2.EVENT_TYPE_LIKE, "music-3", "travel-7")
    reply = await ranking.recommend()
    assert set(ids(reply)[:2]) == {"music-3", "travel-7"}
    assert reply.items[0].reason.text == "Popular now"


async def test_nobody_sees_what_is_new(ranking: Harness) -> None:
    ranking.retrieval.put(*(item(f"news-{n}", f"story {n} today", "News", days_old=0.1) for n in range(3)))
    reply = await ranking.recommend()
    fresh = [entry for entry in reply.items if entry.item.id.startswith("news")]
    assert fresh
    assert any(entry.reason.source == pb2.SOURCE_KIND_FRESH for entry in fresh)


async def test_nobody_with_a_filter_gets_only_what_matches(ranking: Harness) -> None:
    only = Filter(field_in=FieldIn(field="categories", values=[AttributeValue(string_value="Travel")]))
    reply = await ranking.recommend(filter=only)
    assert set(themes(reply)) == {"travel"}
    assert len(reply.items) == 10


async def test_a_profile_alone_decides(ranking: Harness) -> None:
    await ranking.describe("u", "I like to cook: recipe, oven and spice")
    reply = await ranking.recommend("u")
    assert themes(reply)[:5] == ["cooking"] * 5
    assert reply.items[0].reason.source == pb2.SOURCE_KIND_PROFILE
    assert reply.items[0].reason.text == "Matches your profile"


async def test_a_chinese_profile_against_chinese_items(tmp_path: Path) -> None:
    items = [
        item("电影", "最新上映的电影《长津湖》", language="zh"),
        item("音乐", "周杰伦的新专辑《最伟大的作品》", language="zh"),
        item("旅游", "云南丽江的旅游攻略", language="zh"),
    ]
    async with running_ranking(tmp_path, *items) as ranking:
        for user, profile in (
            ("电影", "喜欢看电影，最近看了《哪吒之魔童降世》"),
            ("音乐", "喜欢听音乐，喜欢周杰伦和 Taylor Swift"),
            ("旅游", "喜欢旅游，去过海南和云南"),
        ):
            await ranking.describe(user, profile)
            reply = await ranking.recommend(user, context=pb2.RecommendContext(locale="zh-CN"))
            assert ids(reply)[0] == user
            assert reply.items[0].reason.text == "符合你的喜好"


async def test_an_anonymous_text_decides_and_nothing_is_stored(ranking: Harness) -> None:
    reply = await ranking.recommend(anonymous=pb2.AnonymousProfile(text="concert, song, singer"))
    assert themes(reply)[:5] == ["music"] * 5
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await ranking.stub.GetUser(pb2.GetUserRequest(catalog="default", user_id=""))
    assert error.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


async def test_anonymous_recent_items_decide_and_do_not_come_back(ranking: Harness) -> None:
    recent = ["travel-1", "travel-2", "no-such-item"]
    reply = await ranking.recommend(anonymous=pb2.AnonymousProfile(recent_item_ids=recent))
    assert themes(reply)[:5] == ["travel"] * 5
    assert not set(recent) & set(ids(reply))
    assert reply.items[0].reason.text.startswith("Because you viewed “beach mountain hotel flight travel")


async def test_anonymous_items_that_nobody_knows_give_the_list_for_nobody(ranking: Harness) -> None:
    reply = await ranking.recommend(anonymous=pb2.AnonymousProfile(recent_item_ids=["gone-1", "gone-2"]))
    assert len(reply.items) == 10
    assert len(set(themes(reply))) == 4


async def test_a_user_nobody_ever_spoke_of_gets_the_list_for_nobody(ranking: Harness) -> None:
    assert ids(await ranking.recommend("stranger")) == ids(await ranking.recommend())


async def test_a_query_text_decides_over_a_profile(ranking: Harness) -> None:
    await ranking.describe("u", "movie, cinema, director")
    reply = await ranking.recommend("u", query_text="beach hotel")
    assert themes(reply)[:5] == ["travel"] * 5
    assert reply.items[0].reason.text == "Matches your search"


async def test_an_item_just_upserted_is_found_by_its_content(ranking: Harness) -> None:
    await ranking.describe("u", "telescope, planets and stars")
    await ranking.recommend("u")
    ranking.retrieval.put(item("astro-1", "a telescope for planets and stars", "Astronomy", days_old=0))
    reply = await ranking.recommend("u")
    assert ids(reply)[0] == "astro-1"
    assert pb2.SOURCE_KIND_FRESH in {source.source for source in reply.items[0].sources}


async def test_an_empty_catalogue_gives_an_empty_list(ranking: Harness) -> None:
    for fields in ({}, {"query_text": "anything"}, {"user": "u"}):
        reply = await ranking.recommend(catalog="empty", **fields)
        assert not reply.items
        assert not reply.next_page_token


async def test_an_unknown_catalogue_is_not_found(ranking: Harness) -> None:
    for fields in ({}, {"query_text": "anything"}):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await ranking.recommend(catalog="nowhere", **fields)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
