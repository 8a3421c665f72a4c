"""A kill leaves the page cache, a power cut does not: so the way to the disk is looked at itself.

Every acknowledged write is followed by an fsync of the write-ahead log before its answer; writes that come together
share one; a file that takes another's place is on the disk before it does, and so is its name afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import grpc
import pytest
from sqlalchemy import Connection

from ranking_service.users.user import Change
from tests.durability.kill_rounds import service_process
from tests.durability.syscall_trace import Call, calls, tracing
from tests.ranking_service.user_side_harness import event, opened
from tests.retrieval_service.fake_encoder_server import FakeEncoder, running_fake_encoder
from tests.retrieval_service.retrieval_harness import item, running_retrieval
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceStub

ONE_BY_ONE, AT_ONCE = 12, 40
DURABLE = {"journal_mode": "wal", "synchronous": 2, "fullfsync": 0, "foreign_keys": 1, "secure_delete": 1}

Write = Callable[[int], Awaitable[object]]


def pragmas(into: dict[str, object]) -> Callable[[Connection], None]:
    """A job for the writer that reads what holds on the very connection that commits."""

    def read(connection: Connection) -> None:
        for name in DURABLE:
            into[name] = connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()

    return read


async def test_the_connection_that_commits_waits_for_the_disk(tmp_path: Path) -> None:
    found: dict[str, object] = {}
    async with running_retrieval(tmp_path / "retrieval") as running:
        await running.upsert(item("a"))
        assert running.service._writer is not None
        await running.service._writer.submit(pragmas(found), 1)
    assert found == DURABLE
    found.clear()
    async with opened(tmp_path / "ranking") as ranking:
        await ranking.record(event("ann", "LIKE", "film"))

        def read(connection: Connection) -> Change:
            pragmas(found)(connection)
            return Change("default", 0, 0)

        await ranking.side._writer.submit(read, 1)
    assert found == DURABLE


async def timed(write: Write) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """Writes one by one, then many at once; returns when each was sent and answered."""
    one_by_one = []
    for number in range(ONE_BY_ONE):
        sent = time.time()
        await write(number)
        one_by_one.append((sent, time.time()))
    began = time.time()
    await asyncio.gather(*(patiently(write, 1000 + number) for number in range(AT_ONCE)))
    return one_by_one, (began, time.time())


async def patiently(write: Write, number: int) -> None:
    """Writes; a service that strace slows down may refuse a burst as too much, and is asked again."""
    while True:
        try:
            await write(number)
            return
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            await asyncio.sleep(0.2)


def assert_on_the_disk_before_the_answer(made: Sequence[Call], log: str, spans: list[tuple[float, float]]) -> None:
    """Within each span the log is written and then synced, by a sync that begins after the write and ends in time."""
    own = [call for call in made if call.files == (log,)]
    for sent, answered in spans:
        within = [call for call in own if sent <= call.begin and call.end <= answered]
        written = [call.end for call in within if call.writes]
        assert written, "a write was acknowledged that is not in the log"
        synced = [call for call in within if call.syncs and call.begin >= max(written)]
        assert synced, "a write was acknowledged before it was on the disk"
    assert sum(call.syncs for call in own) >= len(spans)


def assert_shared(made: Sequence[Call], log: str, span: tuple[float, float]) -> None:
    """Writes that come together are committed together."""
    syncs = [call for call in made if call.files == (log,) and call.syncs and span[0] <= call.begin <= span[1]]
    assert 1 <= len(syncs) < AT_ONCE


def assert_safely_put_in_place(made: Sequence[Call], source: str, target: str) -> None:
    """Of every rename from `source` to `target`: what was written is synced before it, the folder after it."""
    renames = [
        call
        for call in made
        if call.renames and source in call.files[0] and call.files[-1].rpartition("/")[2].startswith(target)
    ]
    assert renames, f"nothing was renamed to {target}"
    for rename in renames:
        old, new = rename.files[0], rename.files[-1]
        parts = {call.files[0] for call in made if call.writes and call.files and call.files[0].startswith(old)}
        assert parts
        for part in parts:
            written = max(c.end for c in made if c.writes and c.files == (part,) and c.end <= rename.begin)
            assert any(c.syncs and c.files == (part,) and written <= c.begin and c.end <= rename.begin for c in made), (
                f"{part} was not on the disk when it was given its name"
            )
        folder = new.rpartition("/")[0]
        assert any(c.syncs and c.files == (folder,) and c.begin >= rename.end for c in made), (
            f"the name of {new} was not brought to the disk"
        )


async def test_retrieval_answers_after_the_disk_did(tmp_path: Path) -> None:
    trace, data = tmp_path / "trace", tmp_path / "new" / "data"
    async with running_fake_encoder(FakeEncoder()) as encoder:
        flags = ["--data-dir", str(data), "--encoder-address", encoder]
        flags += ["--graph-min-vectors", "40", "--snapshot-every-writes", "40"]
        async with service_process("retrieval_service", flags, prefix=tracing(trace)) as service:
            stub = RetrievalServiceStub(service.channel)

            async def write(number: int) -> None:
                await stub.UpsertItems(
                    pb.UpsertItemsRequest(catalog="default", items=[item(f"{number}", f"title {number}")]), timeout=30
                )

            one_by_one, at_once = await timed(write)
            while not service.logged("snapshot_made"):
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)
    made = calls(trace)
    log = str(data / "items.sqlite3-wal")
    assert_on_the_disk_before_the_answer(made, log, one_by_one)
    assert_shared(made, log, at_once)
    assert_safely_put_in_place(made, "/.writing-", "snapshot-")
    assert_safely_put_in_place(made, "token.key", "token.key")
    for folder in (tmp_path, tmp_path / "new", data):
        assert any(call.syncs and call.files == (str(folder),) for call in made), f"{folder} was not synced"


async def test_ranking_answers_after_the_disk_did(tmp_path: Path) -> None:
    trace, data = tmp_path / "trace", tmp_path / "new" / "data"
    flags = ["--data-dir", str(data), "--snapshot-every-events", "100"]
    async with service_process("ranking_service", flags, prefix=tracing(trace)) as service:
        stub = RankingServiceStub(service.channel)

        async def write(number: int) -> None:
            events = [event(f"user-{number}", "LIKE", f"film-{i}", 1.7e9) for i in range(5)]
            await stub.RecordEvents(ranking_pb.RecordEventsRequest(catalog="default", events=events), timeout=30)

        one_by_one, at_once = await timed(write)
        while not (data / "statistics" / "1.statistics").exists():
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
    made = calls(trace)
    log = str(data / "users.sqlite3-wal")
    assert_on_the_disk_before_the_answer(made, log, one_by_one)
    assert_shared(made, log, at_once)
    assert_safely_put_in_place(made, ".statistics.tmp", "1.statistics")
    assert_safely_put_in_place(made, "token.key", "token.key")
    for folder in (tmp_path, tmp_path / "new", data):
        assert any(call.syncs and call.files == (str(folder),) for call in made), f"{folder} was not synced"


@pytest.mark.parametrize("damage", ["no sync", "sync before the write"])
def test_the_proof_would_notice(damage: str) -> None:
    log = ("/data/store-wal",)
    made = [Call(2.0, 2.1, "pwrite64", log)]
    if damage == "sync before the write":
        made.insert(0, Call(1.5, 1.6, "fdatasync", log))
    with pytest.raises(AssertionError, match="before it was on the disk"):
        assert_on_the_disk_before_the_answer(made, log[0], [(1.0, 3.0)])
