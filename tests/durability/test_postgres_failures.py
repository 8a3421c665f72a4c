"""PostgreSQL killed, hanging, gone for a while: nothing acknowledged is lost, nothing reported as not written is there,
and the services go on by themselves when it is back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import psutil
import psycopg
import pytest
from sqlalchemy import Connection, Engine, event, text

from retrieval_service.item_store import ItemStore
from retrieval_service.store_schema import store_facts
from service_runtime import sql
from service_runtime.errors import FailedPrecondition, StoreUnavailable
from service_runtime.sql_writer import SqlWriter
from tests.postgres_cluster import Cluster, running_cluster
from tests.ranking_service import user_side_harness
from tests.ranking_service.user_side_harness import assert_equal_folds, opened
from tests.retrieval_service.retrieval_harness import Retrieval, item, running_retrieval
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb

NOT_WRITTEN = "nothing was written"
ITEMS = [f"film-{i}" for i in range(9)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A server of this module's own: these tests kill it."""
    with running_cluster() as own:
        yield own


@pytest.fixture
def url(cluster: Cluster) -> Iterator[str]:
    with cluster.store() as fresh:
        yield fresh


# ---- an answer that is lost


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = sql.open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (n INTEGER PRIMARY KEY)"))
        store_facts.create(connection)
    yield engine
    engine.dispose()


def insert(n: int) -> Any:
    def write(connection: Connection) -> int:
        connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": n})
        return n

    return write


def stored(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT n FROM numbers ORDER BY n")).scalars())


@contextlib.asynccontextmanager
async def running_writer(engine: Engine) -> AsyncIterator[tuple[SqlWriter[int], list[int]]]:
    applied: list[int] = []
    writer: SqlWriter[int] = SqlWriter(engine, apply=applied.extend, name="test", facts=store_facts)
    writer.start()
    assert await writer.submit(insert(0), 1) == 0
    yield writer, applied
    await writer.close()
    assert applied == stored(engine)
    with engine.connect() as connection:
        assert connection.execute(store_facts.select()).all() == []  # nothing stays behind


def at_the_next_commit(engine: Engine, act: Any) -> None:
    """Calls `act` with the driver's connection once, when SQLAlchemy is about to commit."""
    event.listen(engine, "commit", lambda connection: act(connection.connection.dbapi_connection), once=True)


async def test_a_commit_whose_answer_is_lost_counts_when_it_was_made(engine: Engine) -> None:
    async with running_writer(engine) as (writer, applied):

        def commit_and_break(driver: Any) -> None:
            driver.commit()
            driver.close()

        at_the_next_commit(engine, commit_and_break)
        assert await writer.submit(insert(1), 1) == 1
        assert await writer.submit(insert(2), 1) == 2
        assert applied == [0, 1, 2]


async def test_a_commit_that_never_arrived_is_reported_as_not_written(engine: Engine, cluster: Cluster) -> None:
    async with running_writer(engine) as (writer, applied):

        def terminate(driver: Any) -> None:
            with cluster.connect() as other:
                other.execute("SELECT pg_terminate_backend(%s)", [driver.info.backend_pid])

        at_the_next_commit(engine, terminate)
        with pytest.raises(StoreUnavailable, match=NOT_WRITTEN):
            await writer.submit(insert(1), 1)
        assert await writer.submit(insert(2), 1) == 2
        assert applied == [0, 2]


async def test_a_transaction_that_the_server_still_runs_is_waited_for(engine: Engine) -> None:
    """The connection is gone on this side only: the server may yet commit, and then it counts."""
    async with running_writer(engine) as (writer, applied):
        kept: list[Any] = []

        def lose(driver: Any) -> None:
            kept.append(psycopg.Connection(driver.pgconn))  # the server's side lives on with this
            driver.pgconn = psycopg.pq.PGconn.connect(b"host=nowhere.invalid")

        at_the_next_commit(engine, lose)
        writing = asyncio.ensure_future(writer.submit(insert(1), 1))
        await asyncio.sleep(0.5)
        assert not writing.done()
        kept[0].commit()
        kept[0].close()
        assert await writing == 1
        assert applied == [0, 1]


async def test_while_the_server_is_away_nobody_is_told_more_than_is_known(engine: Engine, cluster: Cluster) -> None:
    async with running_writer(engine) as (writer, applied):

        def commit_and_lose_the_server(driver: Any) -> None:
            driver.commit()
            driver.close()
            cluster.stop()

        at_the_next_commit(engine, commit_and_lose_the_server)
        try:
            with pytest.raises(StoreUnavailable, match="may or may not be durable"):
                await writer.submit(insert(1), 1)
            with pytest.raises(StoreUnavailable, match=NOT_WRITTEN):
                await writer.submit(insert(2), 1)
            assert applied == [0]
        finally:
            await asyncio.to_thread(cluster.start)
        async with asyncio.timeout(20):
            while len(applied) < 2:  # memory follows the store as soon as that can be asked
                await asyncio.sleep(0.05)
        assert await writer.submit(insert(3), 1) == 3
        assert applied == [0, 1, 3]


async def test_transactions_in_each_others_way_are_repeated(engine: Engine) -> None:
    """Two replicas whose groups lock the same rows in opposite order: the one that PostgreSQL ends is repeated."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO numbers VALUES (1), (2)"))
    meet = threading.Barrier(2)

    def lock(first: int, second: int) -> Any:
        met = []

        def write(connection: Connection) -> int:
            for n in (first, second):
                connection.execute(text("SELECT n FROM numbers WHERE n = :n FOR UPDATE"), {"n": n})
                if not met:
                    met.append(True)
                    meet.wait(10)
            return first

        return write

    writers: list[SqlWriter[int]] = [
        SqlWriter(engine, apply=lambda done: None, name="test", facts=store_facts) for _ in range(2)
    ]
    for writer in writers:
        writer.start()
    jobs = [writers[0].submit(lock(1, 2), 1), writers[1].submit(lock(2, 1), 1)]
    assert await asyncio.gather(*jobs) == [1, 2]
    for writer in writers:
        await writer.close()


# ---- one writer


def test_a_second_writer_is_refused_and_one_that_is_gone_leaves_nothing_behind(url: str) -> None:
    with contextlib.closing(ItemStore(url)) as first:
        first.create_tables()
        with contextlib.closing(ItemStore(url)) as second:
            assert second._only_writer is not None
            second._only_writer._start_wait_s = 0.2
            with pytest.raises(FailedPrecondition, match="another service writes") as refusal:
                second.create_tables()
            assert refusal.value.reason == "STORE_IN_USE"
            with second.reading() as connection:  # snapshots, checks and backups read beside the writer
                assert second.catalogs(connection) == []
    with contextlib.closing(ItemStore(url)) as third:
        third.create_tables()


def break_connections(cluster: Cluster, which: str = "true") -> None:
    with cluster.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE application_name = 'zhiyin' AND pid <> pg_backend_pid() AND {which}"
        )


def schema_of(url: str) -> str:
    return url.rpartition("%3D")[2]


async def test_a_service_gets_its_lock_back_after_a_lost_connection(url: str, cluster: Cluster, tmp_path: Path) -> None:
    async with running_retrieval(tmp_path, store_url=url) as retrieval:
        await retrieval.upsert(item("a"))
        break_connections(cluster)
        await written_at_last(retrieval, "b")
        assert await retrieval.search_text("b", limit=1) == ["b"]
        with contextlib.closing(ItemStore(url)) as second:
            assert second._only_writer is not None
            second._only_writer._start_wait_s = 0.2
            with pytest.raises(FailedPrecondition):
                second.create_tables()
        assert retrieval.ended == []


async def test_a_service_that_was_replaced_ends(url: str, cluster: Cluster, tmp_path: Path) -> None:
    """Also when it notices late, and when its successor is gone again: what it has in memory may be out of date."""
    async with running_retrieval(tmp_path, store_url=url) as retrieval:
        with contextlib.closing(ItemStore(url)) as successor:
            taking = asyncio.create_task(asyncio.to_thread(successor.create_tables))
            await asyncio.sleep(0.2)  # it waits for the lock, and is faster than the service that loses it
            break_connections(cluster, "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)")
            await taking
            async with asyncio.timeout(20):
                while not retrieval.ended:
                    await asyncio.sleep(0.05)
        assert retrieval.service.failed


# ---- the server killed under load


async def written_at_last(retrieval: Retrieval, item_id: str) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await retrieval.upsert(item(item_id))
                return
            await asyncio.sleep(0.1)


class Ledger:
    """What callers were told of their writes."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.refused: set[str] = set()
        self.unknown: set[str] = set()

    def failed(self, ids: Sequence[str], message: str) -> None:
        (self.refused if NOT_WRITTEN in message else self.unknown).update(ids)

    def check(self, stored_ids: set[str]) -> None:
        assert self.acknowledged <= stored_ids, "an acknowledged write is lost"
        assert not self.refused & stored_ids, "a write that was reported as not written is there"


async def kill_and_restart(cluster: Cluster, rounds: int, ledger: Ledger) -> None:
    for number in range(rounds):
        before = len(ledger.acknowledged)
        async with asyncio.timeout(40):
            while len(ledger.acknowledged) < before + 20:  # it works again by itself
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.03 * (number % 7))
        cluster.kill()
        await asyncio.sleep(0.1 * (number % 4))
        await asyncio.to_thread(cluster.start)


ROUNDS = [1, pytest.param(30, marks=[pytest.mark.long, pytest.mark.timeout(900)])]


@pytest.mark.parametrize("rounds", ROUNDS)
async def test_retrieval_outlives_a_killed_server(url: str, cluster: Cluster, tmp_path: Path, rounds: int) -> None:
    ledger = Ledger()
    codes: set[grpc.StatusCode] = set()
    done = asyncio.Event()

    async def write(retrieval: Retrieval, writer: int) -> None:
        number = 0
        while not done.is_set():
            number += 1
            ids = [f"w{writer}x{number}x{i}" for i in range(4)]  # one word: searches tell them apart
            try:
                await retrieval.upsert(*(item(i) for i in ids))
                ledger.acknowledged.update(ids)
            except grpc.aio.AioRpcError as error:
                codes.add(error.code())
                ledger.failed(ids, error.details() or "")
                await asyncio.sleep(0.05)

    async with running_retrieval(tmp_path, store_url=url) as retrieval:
        writers = [asyncio.create_task(write(retrieval, n)) for n in range(3)]
        await kill_and_restart(cluster, rounds, ledger)
        done.set()
        await asyncio.gather(*writers)
        await written_at_last(retrieval, "last")
        in_store: set[str] = set()
        token = ""
        while True:
            request = pb.ListItemsRequest(catalog="default", page_size=500, page_token=token)
            page = await retrieval.stub.ListItems(request, timeout=20)
            in_store.update(found.id for found in page.items)
            if not (token := page.next_page_token):
                break
        ledger.check(in_store)
        assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        stats = await retrieval.stats()
        assert stats.indexed_count == stats.item_count == len(in_store)
        assert stats.applied_sequence == stats.sequence
        some = [*sorted(in_store)[:100], *sorted(in_store)[-100:]]
        for item_id in some[:: len(some) // 20]:
            assert await retrieval.search_text(item_id, limit=1, exact=True) == [item_id]
        assert retrieval.ended == []


@pytest.mark.parametrize("rounds", ROUNDS)
async def test_ranking_outlives_a_killed_server(
    url: str, cluster: Cluster, tmp_path: Path, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZHIYIN_RANKING_STORE_URL", url)
    ledger = Ledger()
    done = asyncio.Event()

    async with opened(tmp_path, snapshot_every_events=200) as ranking:

        async def write(writer: int) -> None:
            number = 0
            while not done.is_set():
                number += 1
                ids = [f"w{writer}-{number}-{i}" for i in range(4)]
                events = [
                    user_side_harness.event(
                        f"u{number % 7}", "LIKE", ITEMS[(number + i) % 9], 1.7e9 + number, event_id=e
                    )
                    for i, e in enumerate(ids)
                ]
                try:
                    await ranking.record(*events)
                    ledger.acknowledged.update(ids)
                except StoreUnavailable as error:
                    ledger.failed(ids, error.message)
                    await asyncio.sleep(0.05)

        writers = [asyncio.create_task(write(n)) for n in range(3)]
        await kill_and_restart(cluster, rounds, ledger)
        done.set()
        await asyncio.gather(*writers)
        with cluster.connect(schema_of(url)) as connection:
            ledger.check({row[0] for row in connection.execute("SELECT event_id FROM events")})
        live = ranking.side._statistics._catalogs["default"].statistics
        assert_equal_folds(live, user_side_harness.recount(tmp_path), ITEMS, 1.7e9)
        assert ranking.side.readiness() is None


# ---- the server hangs, or is not there


@contextlib.contextmanager
def hanging(cluster: Cluster) -> Iterator[None]:
    parent = psutil.Process(cluster.pid)
    processes = [parent, *parent.children()]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in reversed(processes):
            process.resume()


async def test_a_server_that_hangs_holds_nobody_beyond_the_deadline(url: str, cluster: Cluster, tmp_path: Path) -> None:
    async with running_retrieval(tmp_path, store_url=url) as retrieval:
        await retrieval.upsert(item("a", "red film"))
        with hanging(cluster):
            started = time.monotonic()
            calls = [
                retrieval.stub.UpsertItems(pb.UpsertItemsRequest(catalog="default", items=[item("b")]), timeout=1.0),
                retrieval.stub.GetItems(pb.GetItemsRequest(catalog="default", item_ids=["a"]), timeout=1.0),
            ]
            for answer in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(answer, grpc.aio.AioRpcError)
                assert answer.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert time.monotonic() - started < 10
            # What is in memory is served, however many wait for the store.
            request = pb.GetItemsRequest(catalog="default", item_ids=["a"])
            waiting = [asyncio.ensure_future(retrieval.stub.GetItems(request, timeout=15)) for _ in range(40)]
            assert await retrieval.search_text("red film", limit=1) == ["a"]
        await asyncio.gather(*waiting, return_exceptions=True)
        await written_at_last(retrieval, "c")
        assert retrieval.ended == []


async def test_a_warm_user_is_served_while_the_server_hangs(url: str, cluster: Cluster, tmp_path: Path) -> None:
    like = user_side_harness.event("ann", "LIKE", "a")
    async with opened(tmp_path, store_url=url) as ranking:
        await ranking.record(like)
        assert (await ranking.side.reader.read("default", "ann")).known
        with hanging(cluster):
            recording = asyncio.ensure_future(ranking.record(like))
            for _ in range(20):
                assert (await ranking.side.reader.read("default", "ann")).known
            assert dict(ranking.side.statistics.popular("default", time.time(), 9)).keys() == {"a"}
            assert not recording.done()
        assert (await recording).recorded_count == 1


@pytest.mark.parametrize("service", ["ranking", pytest.param("retrieval", marks=pytest.mark.long)])
def test_a_service_waits_for_its_database_and_tells_no_password(service: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        f"ZHIYIN_{service.upper()}_STORE_URL": "postgresql+psycopg://zhiyin:open-sesame@127.0.0.1:1/items",
    }
    command = [sys.executable, "-m", f"{service}_service", "--port", "0", "--data-dir", str(tmp_path / "data")]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    give_up = time.monotonic() + 30
    while log.read_bytes().count(b"store_not_available") < 2:
        assert time.monotonic() < give_up, log.read_text()
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0, log.read_text()
    assert "Connection refused" in log.read_text()
    assert "open-sesame" not in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.long
def test_a_second_service_says_why_it_does_not_start(url: str, tmp_path: Path) -> None:
    with contextlib.closing(ItemStore(url)) as first:
        first.create_tables()
        environment = {**os.environ, "ZHIYIN_RETRIEVAL_STORE_URL": url}
        command = [sys.executable, "-m", "retrieval_service", "--port", "0", "--data-dir", str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "cannot start: another service writes to this item store" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [("mysql://db/x", "mysql is not supported"), ("/var/lib/items", "is no database URL")],
)
def test_a_wrong_url_is_a_fault_of_the_settings(wrong: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        sql.check_url(wrong)


def test_a_database_that_cannot_hold_chinese_is_refused(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        connection.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LOCALE 'C' LOCALE_PROVIDER libc")
    store = ItemStore(cluster.url("latin"))
    with contextlib.closing(store), pytest.raises(FailedPrecondition, match=r"LATIN1.*--encoding=UTF8"):
        store.create_tables()


def test_the_server_commits_as_durably_as_it_can(url: str) -> None:
    with contextlib.closing(ItemStore(url)) as store:
        store.create_tables()
        with store.engine.connect() as connection:
            shown = {
                name: connection.exec_driver_sql(f"SHOW {name}").scalar_one()
                for name in ("fsync", "synchronous_commit", "statement_timeout", "lock_timeout")
            }
        assert shown == {"fsync": "on", "synchronous_commit": "on", "statement_timeout": "1min", "lock_timeout": "10s"}
        with store.reading() as connection:
            assert connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "repeatable read"
            assert connection.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "on"


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ValueError, match=r"zhiyin\[postgres\]"):
        sql.check_url("postgresql+psycopg://zhiyin@db/items")
