"""Served lists in PostgreSQL: any replica explains what another one served, and none tells of an erased user."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from tests.ranking_service.recommend_harness import Harness, running_ranking, themed_catalog
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

pytestmark = pytest.mark.long


async def explained(ranking: Harness, token: str) -> pb2.ExplainResponse | None:
    request = pb2.ExplainRequest(catalog="default", attribution_token=token, reproduce=True)
    try:
        return await ranking.stub.Explain(request, timeout=10)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return None


async def test_replicas_explain_each_others_lists(tmp_path: Path, postgres_url: str) -> None:
    ours = {"store_url": postgres_url, "token_key_file": tmp_path / "token.key", "tail_interval_s": 0.05}
    async with (
        running_ranking(tmp_path / "a", *themed_catalog(), **ours) as one,
        running_ranking(tmp_path / "b", *themed_catalog(), **ours) as other,
    ):
        token = await one.act("u", pb2.EVENT_TYPE_LIKE, "film-1", "film-2")
        here = (await one.recommend("u", page_size=5)).items
        there = (await other.recommend("u", page_size=5, consistency_token=token)).items
        # Each writes its list down in its own time; it is asked for its own first.
        assert await explained(one, here[0].attribution_token)
        assert await explained(other, there[0].attribution_token)
        told = await explained(other, here[1].attribution_token)
        assert told is not None
        assert list(told.list) == list(here)
        assert told.reproduction.identical
        await one.stub.DeleteUser(pb2.DeleteUserRequest(catalog="default", user_id="u"))
        for _ in range(100):
            found = [
                await explained(each, entry.attribution_token) for each in (one, other) for entry in (here[0], there[0])
            ]
            if not any(found):
                break
            await asyncio.sleep(0.05)
        assert not any(found)
        assert not (tmp_path / "b" / "served_lists").exists()
