"""The one writer: durable in order, alone in failure, bounded, and never half told."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from service_runtime.errors import NotReady, Overloaded, RevisionConflict, StoreFull, StoreUnavailable
from service_runtime.sql import open_engine, reader, sqlite_url
from service_runtime.sql_writer import SqlWriter


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(sqlite_url(tmp_path / "store.db"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (n INTEGER PRIMARY KEY)"))
    yield engine
    engine.dispose()


def insert(n: int) -> Any:
    def write(connection: Connection) -> int:
        connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": n})
        return n

    return write


def stored(engine: Engine) -> list[int]:
    with reader(engine).connect() as connection:
        return [row[0] for row in connection.execute(text("SELECT n FROM numbers ORDER BY rowid"))]


async def test_jobs_are_committed_in_order_and_applied_before_their_callers_hear(engine: Engine) -> None:
    applied: list[int] = []

    def apply(results: Sequence[int]) -> None:
        assert set(results) <= set(stored(engine)), "applied before it was committed"
        applied.extend(results)

    writer = SqlWriter(engine, apply=apply, name="test")
    writer.start()

    async def one(n: int) -> None:
        assert await writer.submit(insert(n), 10) == n
        assert n in applied

    await asyncio.gather(*(one(n) for n in range(200)))
    await writer.close()
    assert applied == list(range(200)) == stored(engine)


async def test_a_job_that_raises_takes_nobody_with_it(engine: Engine) -> None:
    def conflict(connection: Connection) -> int:
        connection.execute(text("INSERT INTO numbers VALUES (99)"))
        raise RevisionConflict("not the revision I know")

    applied: list[int] = []
    writer = SqlWriter(engine, apply=applied.extend, name="test")
    writer.start()
    jobs = [insert(1), conflict, insert(2), insert(1), insert(3)]
    results = await asyncio.gather(*(writer.submit(job, 1) for job in jobs), return_exceptions=True)
    await writer.close()
    assert isinstance(results[1], RevisionConflict)
    assert isinstance(results[3], Exception)  # the duplicate key
    assert stored(engine) == applied == [1, 2, 3]


async def test_a_full_queue_refuses_early_and_says_when_to_retry(engine: Engine) -> None:
    gate, entered = threading.Event(), threading.Event()

    def blocked(connection: Connection) -> int:
        entered.set()
        gate.wait(10)
        return 0

    writer: SqlWriter[int] = SqlWriter(engine, apply=lambda _: None, name="test", max_queued_bytes=100)
    writer.start()
    first = asyncio.ensure_future(writer.submit(blocked, 1))
    await asyncio.to_thread(entered.wait, 10)
    second = asyncio.ensure_future(writer.submit(insert(1), 80))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await writer.submit(insert(2), 80)
    assert refused.value.retry_after_s > 0
    gate.set()
    await asyncio.gather(first, second)
    await writer.close()
    assert stored(engine) == [1]


async def test_a_caller_that_left_while_waiting_takes_its_job_along(engine: Engine) -> None:
    gate, entered = threading.Event(), threading.Event()

    def blocked(connection: Connection) -> int:
        entered.set()
        gate.wait(10)
        return 0

    writer: SqlWriter[int] = SqlWriter(engine, apply=lambda _: None, name="test")
    writer.start()
    first = asyncio.ensure_future(writer.submit(blocked, 1))
    await asyncio.to_thread(entered.wait, 10)
    gone = asyncio.ensure_future(writer.submit(insert(5), 1))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    gate.set()
    await first
    await writer.submit(insert(6), 1)
    await writer.close()
    assert stored(engine) == [6]


async def test_a_store_that_cannot_commit_refuses_and_recovers(engine: Engine) -> None:
    writer: SqlWriter[int] = SqlWriter(engine, apply=lambda _: None, name="test")
    writer.start()
    with engine.connect() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
    engine.dispose()

    def fill(connection: Connection) -> int:
        connection.execute(text(f"PRAGMA max_page_count={pages}"))  # what a full disk looks like
        for n in range(10_000, 30_000):
            connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": n})
        return 0

    with pytest.raises(StoreFull, match="Make room"):
        await writer.submit(fill, 1)
    assert stored(engine) == []
    engine.dispose()
    await writer.submit(insert(1), 1)
    await writer.close()
    assert stored(engine) == [1]


async def test_when_memory_and_store_disagree_the_writer_stops_and_says_so(engine: Engine) -> None:
    fatal: list[BaseException] = []

    def apply(_: Sequence[int]) -> None:
        raise RuntimeError("the index is gone")

    writer = SqlWriter(engine, apply=apply, name="test", on_fatal=fatal.append)
    writer.start()
    with pytest.raises(NotReady):
        await writer.submit(insert(1), 1)
    assert isinstance(fatal[0], RuntimeError)
    with pytest.raises(NotReady):
        await writer.submit(insert(2), 1)
    assert stored(engine) == [1]  # durable: a restart replays it


async def test_a_job_cancelled_while_it_runs_is_finished(engine: Engine) -> None:
    gate, entered = threading.Event(), threading.Event()

    def slow(connection: Connection) -> int:
        entered.set()
        gate.wait(10)
        return insert(1)(connection)  # type: ignore[no-any-return]

    applied: list[int] = []
    writer = SqlWriter(engine, apply=applied.extend, name="test")
    writer.start()
    leaving = asyncio.ensure_future(writer.submit(slow, 1))
    await asyncio.to_thread(entered.wait, 10)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.set()
    await writer.submit(insert(2), 1)
    await writer.close()
    assert stored(engine) == applied == [1, 2]


async def test_closing_finishes_what_waits_and_refuses_what_comes(engine: Engine) -> None:
    gate, entered = threading.Event(), threading.Event()

    def blocked(connection: Connection) -> int:
        entered.set()
        gate.wait(10)
        return insert(0)(connection)  # type: ignore[no-any-return]

    writer: SqlWriter[int] = SqlWriter(engine, apply=lambda _: None, name="test")
    writer.start()
    jobs = [asyncio.ensure_future(writer.submit(job, 1)) for job in (blocked, insert(1), insert(2))]
    await asyncio.to_thread(entered.wait, 10)
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0.05)
    with pytest.raises(NotReady):
        await writer.submit(insert(3), 1)
    gate.set()
    assert await asyncio.gather(*jobs) == [0, 1, 2]
    await closing
    assert stored(engine) == [0, 1, 2]


@pytest.mark.parametrize(
    "bug", [RuntimeError("x"), KeyError("x"), StopIteration(), UnicodeEncodeError("a", "", 0, 1, "")]
)
async def test_the_writer_survives_a_bug_in_a_job(engine: Engine, bug: Exception) -> None:
    def broken(connection: Connection) -> int:
        connection.execute(text("INSERT INTO numbers VALUES (7)"))
        raise bug

    writer: SqlWriter[int] = SqlWriter(engine, apply=lambda _: None, name="test")
    writer.start()
    failed, fine = await asyncio.wait_for(
        asyncio.gather(writer.submit(broken, 1), writer.submit(insert(1), 1), return_exceptions=True), 10
    )
    await writer.close()
    assert isinstance(failed, Exception)
    assert fine == 1
    assert stored(engine) == [1]


async def test_a_lock_held_by_another_process_is_reported_and_outlived(engine: Engine, tmp_path: Path) -> None:
    # The wait for a lock takes ten seconds by default; this engine's connections wait a tenth of one.
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout=100"))
    engine.dispose()
    writer: SqlWriter[int] = SqlWriter(engine, apply=lambda _: None, name="test")
    writer.start()
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await writer.submit(insert(1), 1)
        other.execute("ROLLBACK")
    finally:
        other.close()
    assert await writer.submit(insert(2), 1) == 2
    await writer.close()
    assert stored(engine) == [2]


async def test_what_was_to_be_written_is_in_no_exception(engine: Engine) -> None:
    def broken(connection: Connection) -> int:
        connection.execute(text("INSERT INTO nowhere VALUES (:profile)"), {"profile": "secret"})
        return 0

    writer: SqlWriter[int] = SqlWriter(engine, apply=lambda _: None, name="test")
    writer.start()
    with pytest.raises(Exception, match="nowhere") as caught:
        await writer.submit(broken, 1)
    await writer.close()
    assert "secret" not in str(caught.value)


def test_sqlite_syncs_every_commit(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2  # FULL
