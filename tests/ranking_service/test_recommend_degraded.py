"""What happens to lists when a part is down, slow or of another model; and what a warm user costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
import pytest

from tests.ranking_service.recommend_harness import Harness, ids, running_ranking, themed_catalog, themes
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2


@pytest.fixture
async def ranking(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running_ranking(tmp_path, *themed_catalog()) as harness:
        yield harness


def reasons(reply: pb2.RecommendResponse) -> Mapping[str, str]:
    return {entry.component: entry.reason for entry in reply.degraded}


async def test_without_an_encoder_the_list_is_made_of_the_rest(ranking: Harness) -> None:
    await ranking.describe("u", "song and concert")
    token = await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1")
    ranking.encoder.down = True
    reply = await ranking.recommend("u", consistency_token=token, query_text="beach")
    assert themes(reply)[:5] == ["film"] * 5
    assert reasons(reply) == {
        "dependency:encoder": "UNAVAILABLE",
        "source:query": "UNAVAILABLE",
        "source:profile": "UNAVAILABLE",
    }


async def test_without_an_encoder_a_profile_alone_still_gives_a_list(ranking: Harness) -> None:
    await ranking.describe("u", "song and concert")
    ranking.encoder.down = True
    reply = await ranking.recommend("u")
    assert len(reply.items) == 10
    assert "source:profile" in reasons(reply)


async def test_an_encoder_that_is_down_is_left_alone_for_a_moment_and_then_asked_again(ranking: Harness) -> None:
    ranking.encoder.down = True
    await ranking.recommend(query_text="beach")
    calls = ranking.encoder.calls
    reply = await ranking.recommend(query_text="mountain")
    assert ranking.encoder.calls == calls
    assert reasons(reply)["source:query"] == "UNAVAILABLE"
    ranking.encoder.down = False
    await asyncio.sleep(0.6)
    reply = await ranking.recommend(query_text="mountain")
    assert not reply.degraded
    assert themes(reply)[:3] == ["travel"] * 3


async def test_a_warm_text_needs_no_encoder(ranking: Harness) -> None:
    await ranking.describe("u", "song and concert")
    await ranking.recommend("u")
    ranking.encoder.down = True
    reply = await ranking.recommend("u")
    assert not reply.degraded
    assert themes(reply)[:5] == ["music"] * 5


async def test_a_warm_user_costs_one_search_and_no_encoder_call(ranking: Harness) -> None:
    await ranking.describe("u", "song and concert")
    await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1", "travel-4", "not-in-the-catalogue")
    await ranking.act("u", pb2.EVENT_TYPE_DISLIKE, "cooking-4")
    await ranking.recommend("u")
    calls, searches = ranking.encoder.calls, len(ranking.retrieval.searches)
    await ranking.recommend("u")
    assert ranking.encoder.calls == calls
    assert len(ranking.retrieval.searches) == searches + 1
    names = [query.name for query in ranking.retrieval.searches[-1].queries]
    assert names == ["profile", "history.0", "history.1", "fresh"]


async def test_near_the_deadline_the_encoder_is_skipped(tmp_path: Path) -> None:
    async with running_ranking(tmp_path, *themed_catalog(), encoder_reserve_s=5.0) as ranking:
        await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1")
        request = pb2.RecommendRequest(catalog="default", user_id="u", query_text="never encoded before")
        reply = await ranking.stub.Recommend(request, timeout=4)
        assert reasons(reply) == {"dependency:encoder": "DEADLINE", "source:query": "DEADLINE"}
        assert themes(reply)[:3] == ["film"] * 3
        assert ranking.encoder.calls == 0


async def test_a_slow_encoder_is_not_waited_for_beyond_its_share(tmp_path: Path) -> None:
    async with running_ranking(tmp_path, *themed_catalog(), encoder_timeout_s=0.1) as ranking:
        await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1")
        ranking.encoder.delay_s = 30
        reply = await ranking.recommend("u", query_text="never encoded before")
        assert reasons(reply)["source:query"] == "UNAVAILABLE"
        assert themes(reply)[:3] == ["film"] * 3


async def test_another_model_is_noticed_and_the_texts_are_encoded_anew(ranking: Harness) -> None:
    await ranking.describe("u", "song and concert")
    await ranking.recommend("u")
    ranking.encoder.fingerprint = ranking.retrieval.fingerprint = "another-model"
    reply = await ranking.recommend("u")
    assert not reply.degraded
    assert themes(reply)[:5] == ["music"] * 5


async def test_a_model_that_is_not_the_catalogues_leaves_the_texts_out(ranking: Harness) -> None:
    await ranking.describe("u", "song and concert")
    token = await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1")
    ranking.encoder.fingerprint = "another-model"
    reply = await ranking.recommend("u", consistency_token=token)
    assert reasons(reply) == {"source:profile": "MODEL_MISMATCH"}
    assert themes(reply)[:5] == ["film"] * 5


async def test_without_retrieval_there_is_no_list_and_a_hint_when_to_repeat(ranking: Harness) -> None:
    await ranking.describe("u", "song and concert")
    await ranking.recommend("u")
    ranking.retrieval.down = True
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await ranking.recommend("u")
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "grpc-retry-pushback-ms" in dict(error.value.trailing_metadata() or ())
    ranking.retrieval.down = False
    assert len((await ranking.recommend("u")).items) == 10


async def test_a_required_source_fails_the_request(tmp_path: Path) -> None:
    async with running_ranking(tmp_path, *themed_catalog(), required_sources=["query"]) as ranking:
        ranking.encoder.down = True
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await ranking.recommend(query_text="beach")
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert len((await ranking.recommend()).items) == 10


async def test_a_source_that_breaks_is_reported_not_swallowed(
    ranking: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("ranking_service.sources.popular.PopularSource.plan", broken)
    reply = await ranking.recommend(query_text="beach")
    assert reasons(reply) == {"source:popular": "FAILED"}
    assert themes(reply)[:3] == ["travel"] * 3


async def test_timings_and_versions_are_told(ranking: Harness) -> None:
    reply = await ranking.recommend(query_text="beach")
    stages = [timing.stage for timing in reply.stage_timings]
    assert stages == [
        "user",
        "sources",
        "retrieve",
        "merge",
        "filter",
        "evidence",
        "score",
        "select",
        "diversify",
        "explain",
    ]
    assert reply.versions.bundle == "builtin"
    assert dict(reply.versions.space_versions) == {"semantic": 1}
    assert reply.versions.catalog_sequence == ranking.retrieval.sequence
    assert reply.consistency_token
    again = await ranking.recommend(query_text="beach", consistency_token=reply.consistency_token)
    assert ids(again) == ids(reply)
