"""Every wrong field is named, all at once; and what this release cannot do says so."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.ranking_service.recommend_harness import Harness, ids, item, running_ranking
from zhiyin.common.v1.embedding_pb2 import EmbeddingMatrix
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2


@pytest.fixture
async def ranking(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running_ranking(tmp_path, item("a", "a song")) as harness:
        yield harness


async def violated_fields(call) -> set[str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(error.value)
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    return {violation.field for violation in bad.field_violations}


async def test_a_wrong_recommend_request_names_every_field(ranking: Harness) -> None:
    request = pb2.RecommendRequest(
        catalog="No Such Name!",
        user_id="x" * 300,
        query_text="q" * 5_000,
        page_size=101,
        diversity=1.5,
        exploration=math.nan,
        diversity_method=77,
        excluded_item_ids=["ok", ""],
        experiment_variant="v" * 65,
    )
    request.context.locale = "l" * 65
    request.item_mask.paths.append("nonsense")
    assert await violated_fields(ranking.stub.Recommend(request)) == {
        "catalog",
        "user_id",
        "query_text",
        "page_size",
        "diversity",
        "exploration",
        "diversity_method",
        "excluded_item_ids[1]",
        "experiment_variant",
        "context.locale",
        "item_mask",
    }


async def test_a_wrong_anonymous_profile(ranking: Harness) -> None:
    profile = pb2.AnonymousProfile(text="t" * 9_000, recent_item_ids=["i"] * 201)
    request = pb2.RecommendRequest(catalog="default", anonymous=profile)
    fields = await violated_fields(ranking.stub.Recommend(request))
    assert fields == {"anonymous.text", "anonymous.recent_item_ids"}


async def test_a_malformed_consistency_token(ranking: Harness) -> None:
    request = pb2.RecommendRequest(catalog="default", user_id="u", consistency_token="nonsense")
    assert await violated_fields(ranking.stub.Recommend(request)) == {"consistency_token"}


async def test_a_wrong_similar_items_request(ranking: Harness) -> None:
    request = pb2.SimilarItemsRequest(catalog="", page_size=500, diversity=-1)
    assert await violated_fields(ranking.stub.SimilarItems(request)) == {
        "catalog",
        "item_ids",
        "page_size",
        "diversity",
    }


async def test_a_wrong_rerank_request(ranking: Harness) -> None:
    request = pb2.RerankRequest(
        catalog="default",
        candidates=[
            pb2.RerankCandidate(item_id="a", score=math.inf),
            pb2.RerankCandidate(item_id="a", score=1),
            pb2.RerankCandidate(item_id="", score=1e300),
        ],
        vectors=EmbeddingMatrix(rows=2, dimensions=2, data=b"1234"),
        personalization=0.5,
    )
    assert await violated_fields(ranking.stub.Rerank(request)) == {
        "candidates",
        "candidates[0].score",
        "candidates[2].item_id",
        "candidates[2].score",
        "vectors.rows",
        "personalization",
    }
    assert await violated_fields(ranking.stub.Rerank(pb2.RerankRequest(catalog="default"))) == {"candidates"}


async def test_limits_are_told(ranking: Harness) -> None:
    limits = await ranking.stub.GetLimits(pb2.GetLimitsRequest())
    assert limits.max_page_size == 100
    assert limits.max_rerank_candidates == 1000
    assert limits.max_list_length == 200
    assert limits.max_events_per_batch > 0
    assert limits.default_deadline.seconds > 0


@pytest.mark.parametrize("seconds", [-62_135_596_800, -62_135_510_400, 253_402_300_799])
async def test_a_list_may_be_for_any_moment_there_is(ranking: Harness, seconds: int) -> None:
    await ranking.describe("u", "movie cinema")
    context = pb2.RecommendContext(time=Timestamp(seconds=seconds))
    for subject in ({"user": "u"}, {"anonymous": pb2.AnonymousProfile(text="song")}, {}):
        assert ids(await ranking.recommend(**subject, context=context)) == ["a"]
