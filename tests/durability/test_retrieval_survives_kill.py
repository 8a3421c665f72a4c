"""kill -9 of the retrieval service in the middle of writes: what was acknowledged is there, nothing is there by half,
and the index equals the store. A few rounds here; `make verify` runs hundreds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import psutil
import pytest

from tests.retrieval_service.fake_encoder_server import FakeEncoder, running_fake_encoder
from tests.retrieval_service.retrieval_harness import item
from zhiyin.common.v1 import item_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as pb_grpc

BATCH = 8


@contextlib.asynccontextmanager
async def service_process(
    data_dir: Path, encoder_address: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, pb_grpc.RetrievalServiceStub]]:
    """`python -m retrieval_service` as it is deployed; killed at the end."""
    command = [sys.executable, "-m", "retrieval_service", "--data-dir", str(data_dir), "--port", "0"]
    command += ["--encoder-address", encoder_address, "--graph-min-vectors", "60", "--snapshot-every-s", "0.3"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    reader = process.stderr
    address, said = "", b""
    while not address:
        line = await asyncio.wait_for(reader.readline(), 30)
        said += line
        assert line, f"the service ended before it listened: {said[-2000:].decode(errors='replace')}"
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            address = event.get("address", "") if event.get("event") == "listening" else ""

    async def drain_log() -> None:
        while await reader.readline():
            pass

    draining = asyncio.create_task(drain_log())
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = pb_grpc.RetrievalServiceStub(channel)
            for _ in range(600):
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await stub.GetLimits(pb.GetLimitsRequest(), timeout=5)
                    break
                await asyncio.sleep(0.05)
            yield process, stub
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
        await draining


def batch_of(number: int, version: int) -> list[item_pb2.Item]:
    """A batch that belongs together: every item says which write it comes from."""
    return [
        item(f"b{number:03d}-{i}", f"batch{number} version{version} item{i}", attributes={"version": float(version)})
        for i in range(BATCH)
    ]


async def write_until_killed(
    stub: pb_grpc.RetrievalServiceStub, acknowledged: dict[int, int], tried: dict[int, int], client: int
) -> None:
    """Upserts batches until the service is gone; notes what was tried and what was acknowledged."""
    rng = random.Random(client)
    with contextlib.suppress(grpc.aio.AioRpcError):
        while True:
            number = client * 20 + rng.randrange(20)
            version = tried.get(number, 0) + 1
            tried[number] = version
            await stub.UpsertItems(
                pb.UpsertItemsRequest(catalog="default", items=batch_of(number, version)), timeout=20
            )
            acknowledged[number] = version


async def all_items(stub: pb_grpc.RetrievalServiceStub) -> list[item_pb2.Item]:
    items, token = [], ""
    while True:
        page = await stub.ListItems(pb.ListItemsRequest(catalog="default", page_size=500, page_token=token), timeout=20)
        items += page.items
        token = page.next_page_token
        if not token:
            return items


async def check(stub: pb_grpc.RetrievalServiceStub, acknowledged: dict[int, int], tried: dict[int, int]) -> None:
    items = await all_items(stub)
    versions: dict[int, list[float]] = {}
    for stored in items:
        versions.setdefault(int(stored.id[1:4]), []).append(stored.attributes["version"].number_value)
    for number, found in versions.items():
        assert len(found) == BATCH, f"batch {number} is there by half"
        assert len(set(found)) == 1, f"batch {number} is of two writes"
        assert acknowledged.get(number, 0) <= found[0] <= tried[number]
    assert not acknowledged.keys() - versions.keys(), "an acknowledged batch is lost"
    # The index holds what the store holds, each item under its newest text.
    found_ids = set()
    for start in range(0, len(items), 200):
        chunk = [i.id for i in items[start : start + 200]]
        reply = await stub.Search(
            pb.SearchRequest(catalog="default", hydrate_item_ids=chunk, vectors_space="semantic"), timeout=20
        )
        assert [reply.items[i].id for i in reply.hydrated_indices] == chunk
    if items:
        request = pb.SearchRequest(
            catalog="default", queries=[pb.SearchQuery(text="batch version item", limit=1000, exact=True)]
        )
        reply = await stub.Search(request, timeout=20)
        found_ids = {reply.items[i].id for i in reply.results[0].item_indices}
    assert found_ids == {i.id for i in items}
    for stored in random.Random(1).sample(items, min(5, len(items))):
        request = pb.SearchRequest(catalog="default", queries=[pb.SearchQuery(text=stored.title, limit=1, exact=True)])
        reply = await stub.Search(request, timeout=20)
        assert reply.items[0].id == stored.id
    stats = await stub.GetCatalogStats(pb.GetCatalogStatsRequest(catalog="default"), timeout=20)
    assert stats.item_count == stats.indexed_count == len(items)
    assert stats.sequence == stats.applied_sequence


async def kill_rounds(data_dir: Path, rounds: int) -> None:
    acknowledged: dict[int, int] = {}
    tried: dict[int, int] = {}
    async with running_fake_encoder(FakeEncoder()) as encoder_address:
        for round_number in range(rounds):
            async with service_process(data_dir, encoder_address) as (process, stub):
                await check(stub, acknowledged, tried)
                children = psutil.Process(process.pid).children(recursive=True)
                words = [child.cmdline() for child in children]
                sockets = [Path(line[line.index("--socket") + 1]) for line in words if "--socket" in line]
                assert sockets
                writers = [
                    asyncio.create_task(write_until_killed(stub, acknowledged, tried, client)) for client in range(3)
                ]
                before = len(acknowledged)
                while len(acknowledged) <= min(before, 40):
                    await asyncio.sleep(0.01)
                await asyncio.sleep(random.Random(round_number).uniform(0.05, 0.5))
                os.kill(process.pid, signal.SIGKILL)
                await asyncio.gather(*writers)
            # The worker ends with the service, however that went.
            _, alive = await asyncio.to_thread(psutil.wait_procs, children, timeout=10)
            assert not alive
            assert not [path for path in sockets if path.exists()]
        async with service_process(data_dir, encoder_address) as (_, stub):
            await check(stub, acknowledged, tried)
    assert acknowledged


async def test_no_acknowledged_write_is_lost_and_none_is_there_by_half(tmp_path: Path) -> None:
    await kill_rounds(tmp_path, rounds=5)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_hundreds_of_kills(tmp_path: Path) -> None:
    await kill_rounds(tmp_path, rounds=200)
