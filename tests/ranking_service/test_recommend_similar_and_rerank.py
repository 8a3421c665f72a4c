"""SimilarItems and Rerank over a real server."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.ranking_service.recommend_harness import Harness, ids, running_ranking, themed_catalog, themes
from zhiyin.common.v1.embedding_pb2 import EmbeddingMatrix
from zhiyin.common.v1.filter_pb2 import FieldIn, Filter
from zhiyin.common.v1.item_pb2 import AttributeValue
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2


@pytest.fixture
async def ranking(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running_ranking(tmp_path, *themed_catalog()) as harness:
        yield harness


async def similar(ranking: Harness, *item_ids: str, **fields) -> pb2.SimilarItemsResponse:
    return await ranking.stub.SimilarItems(pb2.SimilarItemsRequest(catalog="default", item_ids=item_ids, **fields))


async def rerank(ranking: Harness, candidates: dict[str, float], **fields) -> pb2.RerankResponse:
    named = [pb2.RerankCandidate(item_id=item_id, score=score) for item_id, score in candidates.items()]
    return await ranking.stub.Rerank(pb2.RerankRequest(catalog="default", candidates=named, **fields))


def order(reply: pb2.RerankResponse) -> list[str]:
    return [entry.item_id for entry in reply.items]


async def test_similar_items_are_alike_and_not_the_given_ones(ranking: Harness) -> None:
    reply = await similar(ranking, "film-1", "film-2", "unknown")
    assert set(themes(reply)) == {"film"}
    assert not {"film-1", "film-2"} & set(ids(reply))
    assert [entry.rank for entry in reply.items] == list(range(1, 11))
    assert reply.items[0].reason.text.startswith("Like “movie cinema director actor film")
    chinese = await similar(ranking, "film-1", locale="zh")
    assert chinese.items[0].reason.text == "与“movie cinema director actor film1”相似"


async def test_similar_items_learn_what_is_chosen_next(ranking: Harness) -> None:
    for user in range(8):
        for item_id in ("film-1", "music-5"):
            await ranking.act(f"other-{user}", pb2.EVENT_TYPE_CLICK, item_id, session_id=f"s{user}")
    reply = await similar(ranking, "film-1", page_size=20)
    entry = next(entry for entry in reply.items if entry.item.id == "music-5")
    assert entry.reason.source == pb2.SOURCE_KIND_TRANSITION
    assert {s.source for e in reply.items for s in e.sources} <= {pb2.SOURCE_KIND_SIMILAR, pb2.SOURCE_KIND_TRANSITION}


async def test_similar_items_keep_to_filter_exclusions_and_mask(ranking: Harness) -> None:
    only = Filter(field_in=FieldIn(field="categories", values=[AttributeValue(string_value="Films")]))
    reply = await similar(
        ranking, "film-1", filter=only, excluded_item_ids=["film-2"], page_size=50, item_mask={"paths": ["language"]}
    )
    assert set(ids(reply)) == {f"film-{n}" for n in range(12)} - {"film-1", "film-2"}
    assert {entry.item.language for entry in reply.items} == {"en"}
    assert not any(entry.item.title for entry in reply.items)


async def test_similar_items_of_nothing_known(ranking: Harness) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await similar(ranking, "unknown-1", "unknown-2")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_rerank_by_score_alone(ranking: Harness) -> None:
    scores = {"x": 1.0, "y": 3.0, "z": 2.0}
    reply = await rerank(ranking, scores, diversity=0)
    assert order(reply) == ["y", "z", "x"]
    assert [entry.score for entry in reply.items] == [3, 2, 1]
    assert [entry.rank for entry in reply.items] == [1, 2, 3]
    assert [entry.candidate_index for entry in reply.items] == [1, 2, 0]


async def test_rerank_of_scores_as_far_apart_as_they_get(ranking: Harness) -> None:
    await ranking.act("u", pb2.EVENT_TYPE_LIKE, "music-10")
    scores = {"film-1": -3e38, "film-2": 0.0, "film-3": 3e38}
    for fields in ({}, {"user_id": "u", "personalization": 0.1}):
        reply = await rerank(ranking, scores, **fields)
        assert order(reply) == ["film-3", "film-2", "film-1"]
        assert all(math.isfinite(entry.score) for entry in reply.items)


async def test_rerank_with_vectors_needs_nobody(ranking: Harness) -> None:
    ranking.retrieval.down = ranking.encoder.down = True
    vectors = np.repeat(np.eye(3, dtype="<f4"), 3, axis=0) * 5
    matrix = EmbeddingMatrix(data=vectors.tobytes(), rows=9, dimensions=3)
    scores = {f"c{n}": 9.0 - n for n in range(9)}
    reply = await rerank(ranking, scores, vectors=matrix, diversity=0.8, page_size=3)
    assert {entry.candidate_index // 3 for entry in reply.items} == {0, 1, 2}
    assert not reply.degraded
    every = await rerank(ranking, scores, vectors=matrix, diversity=0.8, diversity_method=pb2.DIVERSITY_METHOD_DPP)
    assert sorted(order(every)) == sorted(scores)


async def test_rerank_takes_vectors_from_the_catalogue(ranking: Harness) -> None:
    scores = {f"film-{n}": 10.0 - n for n in range(5)} | {f"music-{n}": 5.0 - n for n in range(5)} | {"unknown": 0.1}
    reply = await rerank(ranking, scores, diversity=0.7, page_size=4)
    assert {item_id.split("-")[0] for item_id in order(reply)} >= {"film", "music"}
    assert len(order(await rerank(ranking, scores))) == 11


async def test_rerank_for_a_user_blends_both_opinions(ranking: Harness) -> None:
    await ranking.act("u", pb2.EVENT_TYPE_LIKE, "music-10", "music-11")
    scores = {"film-1": 2.0, "travel-1": 1.9, "music-1": 1.8, "unknown": 1.7}
    assert order(await rerank(ranking, scores, diversity=0))[0] == "film-1"
    assert order(await rerank(ranking, scores, diversity=0, user_id="u"))[0] == "music-1"
    assert order(await rerank(ranking, scores, diversity=0, user_id="u", personalization=0))[0] == "film-1"
    assert order(await rerank(ranking, scores, diversity=0, user_id="u", personalization=1))[0] == "music-1"


async def test_rerank_goes_on_without_retrieval(ranking: Harness) -> None:
    await ranking.act("u", pb2.EVENT_TYPE_LIKE, "music-10")
    ranking.retrieval.down = True
    reply = await rerank(ranking, {"film-1": 2.0, "music-1": 1.0}, user_id="u")
    assert order(reply) == ["film-1", "music-1"]
    assert "dependency:retrieval" in {entry.component for entry in reply.degraded}
