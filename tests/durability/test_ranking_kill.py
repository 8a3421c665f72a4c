"""kill -9 in the middle of writes, again and again: what was acknowledged is there, and statistics equal a recount."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.ranking_service.user_side_harness import assert_equal_folds, event, opened, recount
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from zhiyin_cli.process_group import free_port

ITEMS = [f"film-{i}" for i in range(12)]
EVENTS_PER_BATCH = 7
WRITERS = 4


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, grpc.aio.Channel]]:
    port = free_port()
    log = (folder / "service.log").open("ab")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ranking_service", "--port", str(port), "--metrics-port", "0"),
        *("--data-dir", str(folder / "data"), "--snapshot-every-events", "150"),
        stdout=log,
        stderr=log,
    )
    log.close()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await serving(channel, process)
            yield process, channel
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def serving(channel: grpc.aio.Channel, process: asyncio.subprocess.Process) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and process.returncode is None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            answer = await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=5)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
        await asyncio.sleep(0.05)
    raise AssertionError("the service did not come up")


class Ledger:
    """What the callers were told."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.sent: dict[str, list[str]] = {}
        self.erased: set[str] = set()
        self.maybe_erased: set[str] = set()
        self.sequence = 0


async def write(channel: grpc.aio.Channel, writer: int, turn: int, ledger: Ledger) -> None:
    """Records batches, and erases a user now and then, until the service is gone."""
    stub = RankingServiceStub(channel)
    dice = random.Random(100 * turn + writer)
    with contextlib.suppress(grpc.aio.AioRpcError):
        for number in range(10_000):
            user = f"user-{writer}-{turn}-{number // 5}"
            name = f"{user}/{number}"
            ids = [f"{name}/{i}" for i in range(EVENTS_PER_BATCH)]
            ledger.sent[name] = ids
            events = [
                event(
                    user,
                    dice.choice(["LIKE", "CLICK", "SKIP", "FINISH"]),
                    dice.choice(ITEMS),
                    1.7e9 + number,
                    event_id=i,
                )
                for i in ids
            ]
            answer = await stub.RecordEvents(pb.RecordEventsRequest(catalog="default", events=events), timeout=30)
            ledger.acknowledged.update(ids)
            ledger.sequence = max(ledger.sequence, answer.sequence)
            if number % 5 == 4 and dice.random() < 0.2:
                ledger.maybe_erased.add(user)
                await stub.DeleteUser(pb.DeleteUserRequest(catalog="default", user_id=user), timeout=30)
                ledger.erased.add(user)


async def check(data: Path, ledger: Ledger) -> None:
    async with opened(data, snapshot_every_events=150) as ranking:
        with ranking.side._store.engine.connect() as connection:
            stored = set(connection.exec_driver_sql("SELECT event_id FROM events").scalars())
            users = set(connection.exec_driver_sql("SELECT user_id FROM users").scalars())
        kept = {i for i in ledger.acknowledged if i.split("/")[0] not in ledger.maybe_erased}
        assert kept <= stored, "an acknowledged event was lost"
        assert not ledger.erased & users, "an erased user came back"
        for name, ids in ledger.sent.items():
            if name.split("/")[0] not in ledger.maybe_erased:
                assert len(stored.intersection(ids)) in (0, len(ids)), "half of a request was recorded"
        live = ranking.side._statistics._catalogs["default"].statistics
        assert live.sequence >= ledger.sequence
        assert_equal_folds(live, recount(data), ITEMS, 1.7e9)


@pytest.mark.parametrize("rounds", [5, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
async def test_nothing_acknowledged_is_lost(tmp_path: Path, rounds: int) -> None:
    dice = random.Random(rounds)
    ledger = Ledger()
    for turn in range(rounds):
        async with running(tmp_path) as (process, channel):
            writers = [asyncio.create_task(write(channel, writer, turn, ledger)) for writer in range(WRITERS)]
            await asyncio.sleep(dice.uniform(0.1, 0.6))
            process.send_signal(signal.SIGKILL)
            await asyncio.gather(*writers)
        await check(tmp_path / "data", ledger)
    assert len(ledger.acknowledged) > 20 * rounds
