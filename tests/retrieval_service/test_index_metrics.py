"""What a scrape says of catalogues and indexes that grow, lose items, restart and go."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client import REGISTRY

from tests.retrieval_service.retrieval_harness import Retrieval, many_items, running_retrieval
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb

_SETTINGS = {"graph_min_vectors": 60, "snapshot_every_s": 0.2}


async def _read(name: str, catalog: str = "default", *, of_index: bool = True) -> float | None:
    labels = {"catalog": catalog} | ({"space": "semantic", "version": "1"} if of_index else {})
    return await asyncio.to_thread(REGISTRY.get_sample_value, f"zhiyin_retrieval_{name}", labels)


async def _until(running: Retrieval, name: str, value: float) -> None:
    async with asyncio.timeout(30):
        while await _read(name) != value:
            await asyncio.sleep(0.05)


async def test_an_index_from_its_first_vector_to_its_snapshot_and_past_a_restart(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path, **_SETTINGS) as running:
        assert await _read("index_vectors") == 0
        items = many_items(80)
        await running.upsert(*items)
        assert await _read("index_vectors") == 80
        assert await _read("items", of_index=False) == 80
        await _until(running, "index_unsaved_vectors", 0)
        assert await _read("index_recall_ratio") == 1.0
        made = await _read("snapshot_created_timestamp_seconds")
        assert made is not None
        gone = [each.id for each in items[:9]]
        await running.stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=gone))
        assert await _read("index_tombstones") == 9
        written = await _read("sequence", of_index=False)
        assert written == (await running.stats()).sequence == await _read("applied_sequence", of_index=False)
    assert await _read("items", of_index=False) is None
    async with running_retrieval(tmp_path, **{**_SETTINGS, "snapshot_every_s": 600.0}):
        assert await _read("index_recall_ratio") == 1.0


async def test_a_dropped_catalogue_is_in_no_later_scrape(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path) as running:
        await running.stub.CreateCatalog(pb.CreateCatalogRequest(catalog=pb.Catalog(name="songs")))
        await running.upsert(*many_items(3), catalog="songs")
        assert await _read("items", "songs", of_index=False) == 3
        await running.stub.DropCatalog(pb.DropCatalogRequest(catalog="songs"))
        assert await _read("items", "songs", of_index=False) is None
        assert await _read("index_vectors", "songs") is None
        assert await _read("items", of_index=False) == 0
