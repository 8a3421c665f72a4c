"""A ranking service that is killed loses at most what had not been written down yet, and no page of what had."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import grpc

from benchmarks.stack import free_ports
from tests.failures.service_processes import ServiceProcess
from tests.ranking_service.recommend_harness import Harness, running_ranking, themed_catalog
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub

_WRITTEN_AFTER_S = 1.0


def flags_of(ranking: Harness, data_dir: Path) -> list[str]:
    settings = ranking.service._settings
    return [
        *("--data-dir", str(data_dir), "--drain-delay-s", "0"),
        *("--retrieval-address", settings.retrieval_address, "--encoder-address", settings.encoder_address),
    ]


async def test_a_kill_loses_what_waited_and_damages_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    async with running_ranking(tmp_path / "harness", *themed_catalog()) as ranking:
        flags = flags_of(ranking, tmp_path / "mine")
        written: list[str] = []
        for _ in range(2):
            service = ServiceProcess("ranking_service", tmp_path, free_ports(1)[0], *flags)
            try:
                await service.start()
                async with grpc.aio.insecure_channel(service.address) as channel:
                    stub = RankingServiceStub(channel)
                    for token in written:
                        request = pb2.ExplainRequest(catalog="default", attribution_token=token)
                        assert (await stub.Explain(request)).item.attribution_token == token
                    for number in range(10):
                        reply = await stub.Recommend(pb2.RecommendRequest(catalog="default", user_id=f"u{number}"))
                        written.append(reply.items[number].attribution_token)
                    await asyncio.sleep(_WRITTEN_AFTER_S)
                    for number in range(5):
                        await stub.Recommend(pb2.RecommendRequest(catalog="default", user_id=f"u{number}"))
                    await service.stop(signal.SIGKILL)
            finally:
                service.kill()
    (file,) = (tmp_path / "mine").rglob("served_lists.sqlite3")
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM served_pages").fetchone()[0] >= 20
