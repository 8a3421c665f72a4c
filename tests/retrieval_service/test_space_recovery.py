"""Named spaces when things die: the index worker, the service, a snapshot's graph; on both kinds of store."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from retrieval_service.named_spaces import IndexKey
from tests.durability.kill_rounds import service_process
from tests.retrieval_service.fake_encoder_server import DIMENSIONS, FakeEncoder, embed, running_fake_encoder
from tests.retrieval_service.retrieval_harness import Retrieval, batches, hit_ids, item, many_items, running_retrieval
from tests.retrieval_service.space_steps import (
    SIZE,
    create,
    held,
    linear,
    listed,
    projected,
    publish,
    put,
    retire,
    search,
)
from tests.retrieval_service.test_index_recovery import until, worker_pid
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceStub

QUERY = np.linspace(-1.0, 1.0, SIZE)


def key_of(version: pb.SpaceVersion) -> IndexKey:
    return IndexKey(1, version.space, version.version)


async def two_spaces(running: Retrieval, count: int) -> tuple[pb.SpaceVersion, pb.SpaceVersion]:
    """A derived and a centred, pushed space over some items, both published."""
    for batch in batches(many_items(count), 500):
        await running.upsert(*batch)
    weights, bias = linear()
    derived = await create(running, projection=weights, bias=bias)
    pushed = await create(running, space="pushed", metric=pb.METRIC_COSINE, centered=True)
    vectors = np.random.default_rng(0).standard_normal((count, SIZE)) + 1
    await put(running, pushed, {f"item-{n:05d}": vectors[n] for n in range(0, count, 2)})
    for version in (derived, pushed):
        await publish(running, version)
    return derived, pushed


async def test_a_killed_worker_comes_back_with_all_spaces(tmp_path: Path, store_url: str) -> None:
    async with running_retrieval(tmp_path, store_url=store_url) as running:
        spaces = await two_spaces(running, 100)
        before = [hit_ids(await search(running, QUERY, space=v.space)) for v in spaces]
        assert [len(ids) for ids in before] == [100, 50]
        os.kill(worker_pid(running), signal.SIGKILL)
        written = asyncio.create_task(running.upsert(item("during", "a wholly different title")))
        after = await asyncio.gather(*(search(running, QUERY, space=v.space) for v in spaces))
        await written
        for ids, reply in zip(before, after, strict=True):
            assert [i for i in hit_ids(reply) if i != "during"] == ids
        assert "during" in hit_ids(await search(running, QUERY))
        assert (await running.stats()).worker_restarts == 1
    async with running_retrieval(tmp_path, store_url=store_url) as running:
        assert "during" in hit_ids(await search(running, QUERY))
        assert hit_ids(await search(running, QUERY, space="pushed")) == before[1]


async def test_a_large_space_gets_a_graph_and_the_next_start_loads_it(tmp_path: Path) -> None:
    options: dict[str, Any] = {"graph_min_vectors": 150, "snapshot_every_s": 600.0}
    async with running_retrieval(tmp_path, **options) as running:
        derived, pushed = await two_spaces(running, 400)
        known = running.service.host._figures
        await until(lambda: all(known[key_of(v)].has_graph for v in (derived, pushed)))
        await until(lambda: known[key_of(pushed)].epoch == 1)
        exact = hit_ids(await search(running, QUERY, limit=20, exact=True))
        assert hit_ids(await search(running, QUERY, limit=20)) == exact
        # After the snapshots, so that the next start replays over them.
        await running.stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=[exact[0], "item-00002"]))
        await put(running, derived, {exact[5]: QUERY * 1000})
        before = [hit_ids(await search(running, QUERY, space=v.space, limit=50, exact=True)) for v in (derived, pushed)]
        assert before[0][0] == exact[5]
        retired = await create(running)
        await retire(running, retired)
    async with running_retrieval(tmp_path, **options) as running:
        known = running.service.host._figures
        for version in (derived, pushed):
            figures = known[key_of(version)]
            assert figures.has_graph
            assert figures.snapshot is not None
        after = [hit_ids(await search(running, QUERY, space=v.space, limit=50, exact=True)) for v in (derived, pushed)]
        assert after == before
        assert not (await running.stats()).notices
        assert {path.name for path in (tmp_path / "snapshots").iterdir()} == {
            "1",
            *(str(key_of(v)) for v in (derived, pushed)),
        }


async def test_items_written_while_a_version_is_loaded_are_in_it(tmp_path: Path) -> None:
    """Loading fills an index beside the writes and graphs and takeovers of the other spaces."""
    options: dict[str, Any] = {"graph_min_vectors": 200, "snapshot_every_s": 0.2}
    async with running_retrieval(tmp_path, **options) as running:
        titles = {one.id: one.title for one in many_items(900)}
        waiting = batches(many_items(900), 15)
        await running.upsert(*waiting.pop(0), *waiting.pop(0))
        gone: list[str] = []

        async def write() -> None:
            for batch in waiting:
                await running.upsert(*batch)
                gone.append(batch[3].id)
                await running.stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=gone[-1:]))

        writing = asyncio.create_task(write())
        made = []
        for seed in range(4):
            weights, bias = linear(seed)
            mean = np.mean([embed(title) for title in titles.values()], axis=0)
            made.append(await create(running, projection=weights, bias=bias, source_mean=mean))
            cosine = {"metric": pb.METRIC_COSINE, "centered": True}
            centred = await create(running, space=f"centred-{seed}", projection=weights, source_mean=mean, **cosine)
            await publish(running, centred)
        assert not writing.done(), "the writes were over before the versions were"
        await writing
        left = [item_id for item_id in titles if item_id not in gone]
        for seed, version in enumerate(made):
            found = await held(running, left, version)
            expected = projected([titles[item_id] for item_id in left], *linear(seed), mean)
            np.testing.assert_allclose([found[item_id] for item_id in left], expected, atol=5e-3)
        for version in await listed(running):
            query = QUERY if version.space != "semantic" else np.ones(DIMENSIONS)
            reply = await search(running, query, space=version.space, space_version=version.version, exact=True)
            assert set(hit_ids(reply)) == set(left), version.space
        assert (await running.stats()).worker_restarts == 0


async def test_marks_of_deletions_stay_for_the_oldest_snapshot(tmp_path: Path) -> None:
    options: dict[str, Any] = {"graph_min_vectors": 50, "snapshot_every_s": 600.0}
    async with running_retrieval(tmp_path, **options) as running:
        derived, _ = await two_spaces(running, 100)
        host, key = running.service.host, key_of(derived)
        await until(lambda: all(figures.has_graph for _, figures in host.known() if figures.live))
        await running.stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=["item-00001"]))
        old = host._figures[key].snapshot
        assert old is not None
        # The semantic index alone gets a newer snapshot: the derived one's replay still needs the mark.
        maintenance = running.service._maintenance
        assert await asyncio.to_thread(maintenance._snapshot, IndexKey(1), host._figures[IndexKey(1)], 60.0, None)
        assert host.oldest_snapshot(1) <= old.sequence
    async with running_retrieval(tmp_path, **options) as running:
        assert "item-00001" not in hit_ids(await search(running, QUERY))
        assert running.service.host._figures[key].live == 99
        assert not (await running.stats()).notices


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, store_url: str) -> None:
    """Puts, creations and publications run until the process is killed; the next start has all that was answered."""
    dice = np.random.default_rng(7)
    weights, bias = linear()
    titles = {f"i{n}": f"film {n}" for n in range(40)}
    settled: dict[str, np.ndarray] = {}
    tried: dict[str, np.ndarray] = {}
    published = 0

    async def work(running: Retrieval, version: pb.SpaceVersion) -> None:
        nonlocal published, tried
        while True:
            tried = {
                f"i{n}": dice.standard_normal(SIZE) for n in dice.choice(30, 5, replace=False)
            }  # ten stay as they are
            await put(running, version, tried)
            settled.update(tried)
            other = await create(running, space="other")
            await put(running, other, {"i1": QUERY})
            await publish(running, other)
            if published:
                await retire(running, pb.SpaceVersion(space="other", version=published))
            published = other.version

    async with running_fake_encoder(FakeEncoder()) as encoder:
        arguments = ["--data-dir", str(tmp_path), "--encoder-address", encoder]
        arguments += ["--store-url", store_url] if store_url else []
        async with service_process("retrieval_service", arguments) as service:
            running = over(service.channel)
            await running.upsert(*(item(item_id, title) for item_id, title in titles.items()))
            version = await create(running, projection=weights, bias=bias)
            working = asyncio.create_task(work(running, version))
            await asyncio.sleep(1.0 + float(dice.random()))
            service.kill()
            await asyncio.gather(working, return_exceptions=True)
        assert settled
        async with service_process("retrieval_service", arguments) as service:
            running = over(service.channel)
            found = await held(running, list(titles), version)
            whole = [np.allclose(found[item_id], vector, atol=4e-3) for item_id, vector in tried.items()]
            assert all(whole) or not any(whole)
            for item_id, vector in settled.items():
                assert item_id in tried or np.allclose(found[item_id], vector, atol=4e-3), item_id
            untouched = [item_id for item_id in titles if item_id not in settled and item_id not in tried]
            mean = np.mean([embed(title) for title in titles.values()], axis=0)
            expected = projected([titles[item_id] for item_id in untouched], weights, bias, mean)
            np.testing.assert_allclose([found[item_id] for item_id in untouched], expected, atol=4e-3)
            current = [v.version for v in await listed(running) if v.space == "other" and v.published]
            assert len(current) <= 1
            if published:
                assert current[0] >= published
                assert hit_ids(await search(running, QUERY, space="other")) == ["i1"]


def over(channel: grpc.aio.Channel) -> Retrieval:
    """A service of another process, for the steps of the tests."""
    return Retrieval(RetrievalServiceStub(channel), None, FakeEncoder())  # type: ignore[arg-type]
