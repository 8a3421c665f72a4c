"""Intents in lists, through a real server with a fake encoder: what moves, what it costs, what happens without them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
import pytest
from prometheus_client import REGISTRY

from tests.ranking_service.recommend_harness import Harness, ids, item, running_ranking, themed_catalog, themes
from zhiyin.encoder.v1 import encoder_service_pb2 as encoder_pb2
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

INTENTS = """
intents:
  - name: trending
    descriptions: [trending hits, 热门榜单]
    weights: {query: 0, popular: 10, history: 0, transition: 0}
  - {name: new, descriptions: [newest arrivals, 新品上架], weights: {query: 0, fresh: 10, history: 0, popular: 0}}
  - {name: surprise, descriptions: [surprise bored, 惊喜], diversity: 1, exploration: 0.5}
  - {name: thing, descriptions: [movie beach song recipe]}
catalogs:
  empty:
    - {name: a, descriptions: [alpha]}
    - {name: b, descriptions: [beta]}
"""
FRESH = [item(f"fresh-{n}", f"strange thing number{n}", "Odd", days_old=0.5) for n in range(6)]


@pytest.fixture
def intents_file(tmp_path: Path) -> Path:
    path = tmp_path / "intents.yaml"
    path.write_text(INTENTS)
    return path


@pytest.fixture
async def ranking(tmp_path: Path, intents_file: Path) -> AsyncIterator[Harness]:
    catalog = [*themed_catalog(), *FRESH]
    async with running_ranking(tmp_path / "data", *catalog, intents_file=intents_file) as harness:
        for number in range(6):
            await harness.act(f"crowd-{number}", pb2.EVENT_TYPE_LIKE, "cooking-1", "cooking-2")
        yield harness


def understood(reply: pb2.RecommendResponse) -> list[str]:
    return [intent.label for intent in reply.intents]


def reasons(reply: pb2.RecommendResponse) -> Mapping[str, str]:
    return {entry.component: entry.reason for entry in reply.degraded}


@pytest.mark.parametrize("words", ["trending hits", "热门榜单"])
async def test_words_for_what_is_popular_bring_what_is_popular(ranking: Harness, words: str) -> None:
    token = await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1")
    reply = await ranking.recommend("u", query_text=words, consistency_token=token)
    assert understood(reply) == ["trending"]
    assert 0.5 <= reply.intents[0].probability <= 1
    assert set(ids(reply)[:2]) == {"cooking-1", "cooking-2"}
    assert themes(await ranking.recommend("u", query_text="movie cinema"))[:3] == ["film"] * 3


@pytest.mark.parametrize("words", ["newest arrivals", "新品上架"])
async def test_words_for_what_is_new_bring_what_is_new(ranking: Harness, words: str) -> None:
    reply = await ranking.recommend("u", query_text=words)
    assert understood(reply) == ["new"]
    assert themes(reply)[:6] == ["fresh"] * 6


async def test_words_that_fit_no_label_change_nothing(ranking: Harness, tmp_path: Path) -> None:
    words = "quantum physics of hotels"
    moved = await ranking.recommend(query_text=words)
    assert understood(moved) == []
    assert ranking.encoder.classified[-1:] == [words]
    async with running_ranking(tmp_path / "plain", *themed_catalog(), *FRESH) as plain:
        for number in range(6):
            await plain.act(f"crowd-{number}", pb2.EVENT_TYPE_LIKE, "cooking-1", "cooking-2")
        assert ids(await plain.recommend(query_text=words)) == ids(moved)
        assert plain.encoder.classified == []


async def test_a_recent_search_tells_and_the_words_of_the_request_tell_more(ranking: Harness) -> None:
    events = [
        pb2.Event(user_id="u", type=pb2.EVENT_TYPE_LIKE, item_id="film-1"),
        pb2.Event(user_id="u", type=pb2.EVENT_TYPE_SEARCH, text="newest arrivals"),
    ]
    sent = await ranking.stub.RecordEvents(pb2.RecordEventsRequest(catalog="default", events=events))
    browsing = await ranking.recommend("u", consistency_token=sent.consistency_token)
    assert understood(browsing) == ["new"]
    assert "fresh" in themes(browsing)[:3]
    assert understood(await ranking.recommend("u", query_text="trending hits")) == ["trending"]


async def test_titles_of_the_session_tell_where_nothing_was_typed(ranking: Harness) -> None:
    ranking.retrieval.put(item("x-1", "trending hits one"), item("x-2", "trending hits two"))
    token = await ranking.act("u", pb2.EVENT_TYPE_LIKE, "x-1", "x-2", session_id="s")
    reply = await ranking.recommend("u", consistency_token=token)
    assert ranking.encoder.classified == ["trending hits two\ntrending hits one"]
    assert understood(reply) == ["trending"]
    named = await ranking.recommend(anonymous=pb2.AnonymousProfile(recent_item_ids=["x-1"]))
    assert understood(named) == ["trending"]


async def test_an_intent_sets_diversity_and_exploration_where_the_request_leaves_them_open(ranking: Harness) -> None:
    def explored(reply: pb2.RecommendResponse) -> int:
        return sum(any(s.source == pb2.SOURCE_KIND_EXPLORATION for s in entry.sources) for entry in reply.items)

    await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1")
    assert explored(await ranking.recommend("u", query_text="surprise bored")) >= 3
    set_by_caller = await ranking.recommend("u", query_text="surprise bored", exploration=0.0)
    assert understood(set_by_caller) == ["surprise"]
    assert explored(set_by_caller) == 0
    assert explored(await ranking.recommend("u", query_text="movie cinema")) == 0


async def test_the_next_page_is_of_the_same_list_and_says_the_same(ranking: Harness) -> None:
    fields = {"query_text": "surprise bored", "page_size": 5}
    first = await ranking.recommend("u", **fields)
    whole = await ranking.recommend("u", **fields, page_token=first.next_page_token)
    assert understood(whole) == understood(first) == ["surprise"]
    assert not set(ids(first)) & set(ids(whole))


async def test_it_costs_one_call_beside_the_other_and_none_when_warm(ranking: Harness) -> None:
    ranking.encoder.delay_s = ranking.encoder.classify_delay_s = 0.05
    ranking.encoder.most_at_once = 0
    calls = ranking.encoder.calls
    for _ in range(3):
        await ranking.recommend(query_text="trending hits")
    assert ranking.encoder.most_at_once == 2
    assert ranking.encoder.classified == ["trending hits"]
    assert ranking.encoder.calls == calls + 1


async def test_labels_are_read_before_anybody_asks_even_if_the_encoder_comes_late(
    tmp_path: Path, intents_file: Path
) -> None:
    async with running_ranking(tmp_path / "data", *themed_catalog(), intents_file=intents_file) as ranking:
        async with asyncio.timeout(10):
            while len(ranking.encoder.labels_read) < 2:
                await asyncio.sleep(0.02)
        assert ranking.encoder.classified == []
        assert set(ranking.encoder.labels_read) == {"trending", "a"}


async def test_labels_belong_to_their_catalogue(ranking: Harness) -> None:
    assert understood(await ranking.recommend(catalog="empty", query_text="alpha")) == ["a"]
    assert understood(await ranking.recommend(query_text="alpha trending hits")) == ["trending"]


async def test_who_says_and_does_nothing_costs_nothing(ranking: Harness) -> None:
    await ranking.recommend("nobody")
    await ranking.recommend(anonymous=pb2.AnonymousProfile(text="movies"))
    await ranking.stub.SimilarItems(pb2.SimilarItemsRequest(catalog="default", item_ids=["film-1"]))
    await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1")
    candidates = [pb2.RerankCandidate(item_id="film-2", score=1)]
    await ranking.stub.Rerank(pb2.RerankRequest(catalog="default", user_id="u", candidates=candidates))
    assert ranking.encoder.classified == []


async def test_without_classify_the_list_is_made_as_ever(ranking: Harness) -> None:
    ranking.encoder.classify_down = True
    reply = await ranking.recommend(query_text="trending hits")
    assert reasons(reply) == {"intents": "UNAVAILABLE"}
    assert reply.intents == []
    assert len(reply.items) == 10
    # The failure of the one does not keep the other from being asked.
    assert "source:query" not in reasons(await ranking.recommend(query_text="beach"))


async def test_labels_that_take_too_long_hold_no_list_up(tmp_path: Path, intents_file: Path) -> None:
    async with running_ranking(
        tmp_path / "data", *themed_catalog(), intents_file=intents_file, encoder_timeout_s=0.2
    ) as ranking:
        ranking.encoder.classify_delay_s = 5
        began = time.monotonic()
        reply = await ranking.recommend(query_text="trending hits")
        assert time.monotonic() - began < 3
        assert reasons(reply) == {"intents": "UNAVAILABLE"}


async def test_the_deadline_keeps_its_reserve(tmp_path: Path, intents_file: Path) -> None:
    catalog = themed_catalog()
    async with running_ranking(
        tmp_path / "data", *catalog, intents_file=intents_file, encoder_reserve_s=9.9
    ) as ranking:
        request = pb2.RecommendRequest(catalog="default", query_text="trending hits")
        reply = await ranking.stub.Recommend(request, timeout=5)
        assert reasons(reply)["intents"] == "DEADLINE"
        assert ranking.encoder.classified == []


@pytest.mark.parametrize("probabilities", [{}, {"trending": 1.0}, {"trending": 1, "new": 0, "surprise": 0, "x": 0}])
async def test_an_answer_to_another_question_is_not_believed(
    ranking: Harness, probabilities: Mapping[str, float]
) -> None:
    scores = [encoder_pb2.LabelScore(id=label, probability=p) for label, p in probabilities.items()]
    ranking.encoder.nonsense = encoder_pb2.ClassifyResponse(classifications=[encoder_pb2.Classification(labels=scores)])
    assert reasons(await ranking.recommend(query_text="trending hits")) == {"intents": "UNAVAILABLE"}


async def test_a_place_in_the_room_for_lists_is_given_up_once(tmp_path: Path, intents_file: Path) -> None:
    catalog = themed_catalog()
    async with running_ranking(tmp_path / "data", *catalog, intents_file=intents_file, lists_at_once=1) as ranking:
        ranking.encoder.delay_s, ranking.encoder.classify_delay_s = 0.05, 0.1
        door = ranking.service._lists_door
        for number in range(5):
            await ranking.recommend(query_text=f"trending hits {number}")
            assert door.inside == 0


async def test_metrics_count_labels_and_unknown(ranking: Harness) -> None:
    def count(label: str) -> float:
        return REGISTRY.get_sample_value("zhiyin_ranking_intents_total", {"intent": label}) or 0.0

    before = count("trending"), count("unknown")
    await ranking.recommend(query_text="trending hits")
    await ranking.recommend(query_text="quantum chromodynamics of the vacuum")
    assert (count("trending"), count("unknown")) == (before[0] + 1, before[1] + 1)


async def test_an_unknown_catalogue_is_still_an_error(ranking: Harness) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ranking.recommend(catalog="nowhere", query_text="trending hits")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
