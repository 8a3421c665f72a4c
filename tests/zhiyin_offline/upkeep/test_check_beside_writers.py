"""A check beside services that write and save snapshots in the middle of it finds nothing that is not there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from retrieval_service import snapshot_builder
from retrieval_service.item_store import ItemStore
from retrieval_service.named_spaces import IndexKey
from tests.ranking_service.user_side_harness import HALF_LIFE_S, event, opened
from tests.retrieval_service.retrieval_harness import item, running_retrieval
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin_offline.upkeep import check
from zhiyin_offline.upkeep.findings import Report
from zhiyin_offline.upkeep.locations import Locations


async def test_statistics_saved_during_the_check_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locations = Locations(tmp_path)
    loop = asyncio.get_running_loop()
    async with opened(locations.ranking, snapshot_every_events=1) as users:
        await users.record(event("ann", "LIKE", "a"), event("eve", "LIKE", "a"))

        def meanwhile(*arguments: Any, **options: Any) -> None:
            asyncio.run_coroutine_threadsafe(users.record(event("bob", "LIKE", "b")), loop).result(20)
            asyncio.run_coroutine_threadsafe(users.delete("eve"), loop).result(20)

        monkeypatch.setattr(check, "check_users", meanwhile)
        report = Report()
        await asyncio.to_thread(check.check_ranking, locations, report, HALF_LIFE_S, repair=False)
    assert report.findings == []
    assert any("2 pairs of user and item" in line for line in report.proved), report.proved


async def test_an_index_saved_during_the_check_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locations = Locations(tmp_path)
    loop = asyncio.get_running_loop()
    async with running_retrieval(locations.retrieval) as retrieval:
        await retrieval.upsert(item("a", "red film"), item("b", "blue song"))

        async def change(catalog: str) -> None:
            await retrieval.upsert(item("c", "green shoe"))
            await retrieval.stub.DeleteItems(pb.DeleteItemsRequest(catalog=catalog, item_ids=["b"]), timeout=20)

        def meanwhile(store: ItemStore, connection: Any, row: Any, report: Report) -> None:
            asyncio.run_coroutine_threadsafe(change(row.name), loop).result(20)
            folder = locations.retrieval / "snapshots" / str(row.catalog_id)
            snapshot_builder.build(store, IndexKey(row.catalog_id), folder, 0.5)

        monkeypatch.setattr(check, "check_items", meanwhile)
        monkeypatch.setattr(check, "check_vectors", lambda *arguments, **options: None)
        report = Report()
        await asyncio.to_thread(check.check_retrieval, locations, report, repair=False)
    assert report.findings == []
    assert any("2 vectors as in the store" in line for line in report.proved), report.proved
