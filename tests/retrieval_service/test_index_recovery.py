"""The index worker dies, snapshots are damaged, indexes are rebuilt: callers see answers, figures say what was."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval_service.named_spaces import IndexKey
from tests.retrieval_service.retrieval_harness import Retrieval, batches, item, many_items, running_retrieval
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        await asyncio.sleep(0.02)


def worker_pid(retrieval: Retrieval) -> int:
    worker = retrieval.service.host._worker
    assert worker is not None
    return worker.pid


def figures(retrieval: Retrieval, catalog: str = "default"):  # type: ignore[no-untyped-def]
    catalog_id = retrieval.service._registry.get(catalog).row.catalog_id
    return retrieval.service.host._figures[IndexKey(catalog_id)]


async def exact_ids(retrieval: Retrieval, text: str = "blue song", limit: int = 20) -> list[str]:
    return await retrieval.search_text(text, limit=limit, exact=True)


async def test_a_killed_worker_is_replaced_and_no_search_fails(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path) as running:
        await running.stub.CreateCatalog(pb.CreateCatalogRequest(catalog=pb.Catalog(name="other")))
        await running.upsert(*many_items(200))
        await running.upsert(item("only one", "blue song"), catalog="other")
        before = await running.search_text("blue song number 9", limit=30)
        for round_number in range(1, 4):
            os.kill(worker_pid(running), signal.SIGKILL)
            answers = await asyncio.gather(*(running.search_text("blue song number 9", limit=30) for _ in range(8)))
            assert all(answer == before for answer in answers)
            assert await running.search_text("blue song", catalog="other") == ["only one"]
            assert (await running.stats()).worker_restarts == round_number
        assert any("restarted" in notice for notice in (await running.stats()).notices)
        assert running.service.readiness() is None
        assert not running.ended


async def test_writes_under_a_dying_worker_are_all_searchable(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path) as running:

        async def killer() -> None:
            for _ in range(4):
                await asyncio.sleep(0.2)
                with contextlib.suppress(ProcessLookupError):  # its successor may not be there yet
                    os.kill(worker_pid(running), signal.SIGKILL)

        killing = asyncio.create_task(killer())
        items = many_items(600)
        for batch in batches(items, 20):
            await running.upsert(*batch)
        await killing
        await until(lambda: running.service.host.restarts >= 1)
        stats = await running.stats()
        assert (stats.item_count, stats.indexed_count) == (600, 600)
        assert set(await running.search_text("film", limit=1000)) == {i.id for i in items}


async def test_a_worker_that_hangs_is_ended_and_replaced(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path) as running:
        await running.upsert(*many_items(50))
        running.service.host._hung_after_s = 0.3
        os.kill(worker_pid(running), signal.SIGSTOP)
        written = await running.upsert(item("during", "a wholly different title"))
        assert written.results[0].created
        assert (await running.search_text("a wholly different title"))[0] == "during"
        assert (await running.stats()).worker_restarts == 1


async def test_no_worker_at_all_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_retrieval(tmp_path) as running:
        await running.upsert(item("a"))
        monkeypatch.setattr("retrieval_service.worker_client.sys.executable", "/bin/false")
        os.kill(worker_pid(running), signal.SIGKILL)
        await until(lambda: bool(running.ended))
        assert running.service.readiness() is not None


async def test_a_growing_catalogue_gets_a_graph_while_it_is_searched_and_written(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path, graph_min_vectors=300, snapshot_every_s=0.2) as running:
        first_worker = worker_pid(running)
        for batch in batches(many_items(400), 50):
            await running.upsert(*batch)
        asked = 0
        while not figures(running).has_graph:
            assert len(await running.search_text("blue song number 9")) == 10
            asked += 1
            assert asked < 3000
        assert worker_pid(running) != first_worker
        await running.upsert(item("after the switch", "a wholly different title"))
        assert (await running.search_text("a wholly different title"))[0] == "after the switch"
        stats = await running.stats()
        assert stats.indexed_count == 401
        assert stats.worker_restarts == 0
        assert stats.snapshot_sequence > 0
        await until(lambda: figures(running).changed_since_snapshot == 0)
        expected = await exact_ids(running)
        found = await running.search_text("blue song", limit=20)
        assert len(set(found) & set(expected)) >= 19
    # The next start loads the snapshot instead of computing the graph again.
    async with running_retrieval(tmp_path, graph_min_vectors=300, snapshot_every_s=600.0) as running:
        assert figures(running).has_graph
        assert figures(running).snapshot is not None
        assert await exact_ids(running) == expected
        assert not (await running.stats()).notices


async def test_too_many_tombstones_are_rebuilt_away(tmp_path: Path) -> None:
    options = {"graph_min_vectors": 200, "snapshot_every_s": 600.0}
    async with running_retrieval(tmp_path, **options) as running:
        items = many_items(500)
        await running.upsert(*items)
        await until(lambda: figures(running).has_graph)
        await running.stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=[i.id for i in items[:290]]))
        await until(lambda: figures(running).tombstones == 0)
        stats = await running.stats()
        assert (stats.indexed_count, stats.tombstone_count, stats.worker_restarts) == (210, 0, 0)
        assert set(await running.search_text("film", limit=500)) == {i.id for i in items[290:]}


async def test_a_renewed_mean_reaches_a_graph_index(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path, graph_min_vectors=60) as running:
        await running.upsert(*many_items(80))
        await until(lambda: figures(running).has_graph)
        epoch = figures(running).epoch
        other = [item(f"other-{i}", f"新闻 体育 足球 比赛 {i}") for i in range(200)]
        await running.upsert(*other)
        await until(lambda: figures(running).epoch > epoch)
        live = await exact_ids(running, "足球 比赛", limit=30)
    async with running_retrieval(tmp_path, graph_min_vectors=60) as running:
        assert await exact_ids(running, "足球 比赛", limit=30) == live


async def test_a_snapshot_of_a_dropped_catalogue_is_gone_after_a_restart(tmp_path: Path) -> None:
    left = tmp_path / "snapshots" / "77" / "snapshot-1"  # as the snapshot process leaves it when a drop overtakes it
    left.mkdir(parents=True)
    async with running_retrieval(tmp_path) as retrieval:
        assert not left.parent.exists()
        await retrieval.upsert(item("a"))


async def test_the_store_is_opened_for_durability(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path) as running:
        with running.service.store.engine.connect() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            }
        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
