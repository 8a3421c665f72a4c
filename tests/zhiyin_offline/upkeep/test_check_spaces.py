"""`check` over vector spaces beside `semantic`: it proves them beside a running service, and says what was harmed."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import grpc
import numpy as np
import pytest

from retrieval_service.named_spaces import IndexKey
from tests.retrieval_service.retrieval_harness import item, running_retrieval
from tests.retrieval_service.space_steps import SIZE, create, linear, publish, put
from tests.retrieval_service.test_index_recovery import until
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceStub
from zhiyin_offline.upkeep.check import check_retrieval
from zhiyin_offline.upkeep.findings import Report
from zhiyin_offline.upkeep.locations import Locations

COUNT = 60


def checked(data: Path, address: str = "") -> Report:
    report = Report()
    if not address:
        check_retrieval(Locations(data), report, repair=False)
        return report
    with grpc.insecure_channel(address) as channel:
        check_retrieval(Locations(data), report, repair=False, live=RetrievalServiceStub(channel))
    return report


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A derived and a pushed space, both published, with graphs and so with snapshots; checked beside the service."""
    weights, bias = linear()
    options = {"graph_min_vectors": 40, "snapshot_every_s": 600.0}
    async with running_retrieval(tmp_path / "retrieval", **options) as running:
        await running.upsert(*(item(f"i{n}", f"film {n}") for n in range(COUNT)))
        derived = await create(running, projection=weights, bias=bias)
        pushed = await create(running, space="pushed", metric=pb.METRIC_COSINE, centered=True)
        vectors = np.random.default_rng(1).standard_normal((COUNT, SIZE)) + 2
        await put(running, derived, {"i1": vectors[0] * 50, "i2": vectors[1]})
        await put(running, pushed, {f"i{n}": vectors[n] for n in range(50)})
        for version in (derived, pushed):
            await publish(running, version)
        known = running.service.host._figures
        keys = [IndexKey(1), *(IndexKey(1, v.space, v.version) for v in (derived, pushed))]
        await until(lambda: all(known[key].has_graph and known[key].epoch == (i != 1) for i, key in enumerate(keys)))
        await running.upsert(item("late", "after the snapshots"))
        await running.stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=["i5"]))
        await put(running, pushed, {"i7": vectors[50]})
        live = await asyncio.to_thread(checked, tmp_path, running.address)
        assert not live.findings, live.findings
        said = [line for line in live.proved if "in service" in line]
        assert len(said) == 3
        assert all("60 vectors as in the store" in line for line in said)
    return tmp_path


def test_what_stopped_services_left_is_proved_version_by_version(data: Path) -> None:
    report = checked(data)
    assert not report.findings, report.findings
    proved = "\n".join(report.proved)
    assert f"60 vectors of {SIZE} components, 2 put, one for every item" in proved
    assert f"49 vectors of {SIZE} components, 49 put" in proved
    for space, count in (("sequence", 59), ("pushed", 48)):  # without what changed after the snapshot
        assert f"index snapshot, catalogue default, space {space}" in proved
        assert f"{count} vectors as in the store at write" in proved


HARM = {
    "UPDATE space_vectors SET data = zeroblob(3) WHERE space = 'pushed' AND number = 3": "1 vectors of another size",
    "UPDATE space_vectors SET data = zeroblob(24) WHERE space = 'pushed' AND number = 3": "1 vectors of another length",
    "UPDATE space_vectors SET number = 999 WHERE space = 'pushed' AND number = 3": "1 vectors of no item",
    "UPDATE space_vectors SET sequence = 999 WHERE space = 'sequence' AND number = 1": "1 vectors put after the last",
    "DELETE FROM projections": "1 projections that are missing or of another size",
    "UPDATE projections SET bias = zeroblob(4)": "1 projections that are missing or of another size",
    "UPDATE projections SET version = 77": "1 space versions in projections that do not exist",
    "UPDATE space_vectors SET version = 77 WHERE space = 'sequence'": "1 space versions in space_vectors that do not",
    "UPDATE spaces SET space = 'sequence' WHERE space = 'pushed'": "1 spaces with more than one published version",
    f"UPDATE projections SET bias = x'{'0000C07F' * SIZE}'": "vectors with values that are no numbers",
    "UPDATE space_vectors SET data = (SELECT data FROM space_vectors WHERE space = 'pushed' AND number = 9)"
    " WHERE space = 'pushed' AND number = 3": "1 vectors are missing or others, 0 are of no item",
}


def test_what_was_harmed_is_said(data: Path) -> None:
    file = data / "retrieval" / "items.sqlite3"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = file.read_bytes()
    for harm, said in HARM.items():
        file.write_bytes(whole)
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        connection = sqlite3.connect(file)
        with connection:
            assert connection.execute(harm).rowcount > 0
        connection.close()
        found = [str(finding) for finding in checked(data).findings]
        assert any(said in line for line in found), (harm, found)
