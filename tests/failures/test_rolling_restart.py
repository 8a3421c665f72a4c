"""A service is stopped by SIGTERM and started again under load: clients with the shipped retry config see nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from benchmarks.stack import free_ports
from tests.failures.light_encoder import DIMENSIONS
from tests.failures.service_processes import ServiceProcess, service_processes
from tests.failures.stack_under_test import Client, StackUnderTest
from tests.retrieval_service.fake_encoder_server import FakeEncoder, running_fake_encoder
from tests.retrieval_service.retrieval_harness import many_items
from zhiyin.encoder.v1 import encoder_service_pb2 as encoder_pb
from zhiyin.encoder.v1.encoder_service_pb2_grpc import EncoderServiceStub
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb
from zhiyin_client import CLIENT_SERVICE_CONFIG, client_channel_options
from zhiyin_client.refusals import from_rpc_error

DEADLINE_S = 10.0
IMPORTED = 2_000


def test_the_documented_retry_config_is_the_shipped_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    documented = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert documented is not None
    assert json.loads(documented[1]) == CLIENT_SERVICE_CONFIG


async def test_no_call_fails_while_services_restart_one_after_another(tmp_path: Path) -> None:
    """Two encoders behind one name, as a service without state is run, and one of each of the others."""
    model = ("--model-dir", str(tmp_path / "model"), "--drain-delay-s", "0")
    encoders = [ServiceProcess("tests.failures.light_encoder", tmp_path, port, *model) for port in free_ports(2)]
    both = "ipv4:" + ",".join(encoder.address for encoder in encoders)
    try:
        await asyncio.gather(*(encoder.start() for encoder in encoders))
        async with service_processes(tmp_path, both) as (retrieval, ranking):
            stack = StackUnderTest(tmp_path, retrieval.address, ranking.address, dimensions=DIMENSIONS)
            async with (
                stack.client(retries=True) as client,
                grpc.aio.insecure_channel(both, client_channel_options()) as to_encoder,
            ):
                await client.fill()
                for service in (*encoders, retrieval, ranking):
                    answered = await _under_load(client, EncoderServiceStub(to_encoder), service.restart)
                    assert min(answered.values()) >= 3, answered
        assert [await encoder.stop() for encoder in encoders] == [0, 0]
    finally:
        for encoder in encoders:
            encoder.kill()


async def _under_load(client: Client, encoder: Any, disturb: Callable[[], Awaitable[None]]) -> Counter[str]:
    """Calls of every kind without a pause before, during and after; the first that fails fails the test.

    A call that a busy machine has no room for is no failure: it is made again when the refusal says.
    """
    answered: Counter[str] = Counter()
    over = asyncio.Event()

    async def embed(i: int) -> None:
        await encoder.Embed(encoder_pb.EmbedRequest(texts=[f"song {i}"]), timeout=DEADLINE_S)

    async def repeat(name: str) -> None:
        while not over.is_set():
            try:
                if name == "Embed":
                    await embed(answered[name])
                else:
                    await client.calls(DEADLINE_S)[name]()
            except grpc.aio.AioRpcError as refused:
                if refused.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                pause = from_rpc_error(refused).retry_after_s
                assert pause is not None
                await asyncio.sleep(pause)
                continue
            answered[name] += 1
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        for name in ("Embed", *client.calls()):
            group.create_task(repeat(name))
        await asyncio.sleep(0.3)
        await disturb()
        await asyncio.sleep(0.3)
        over.set()
    return answered


async def test_an_import_goes_on_after_a_restart_and_loses_nothing(tmp_path: Path) -> None:
    rows = tmp_path / "items.jsonl"
    rows.write_text("".join(json.dumps({"id": item.id, "title": item.title}) + "\n" for item in many_items(IMPORTED)))
    async with (
        running_fake_encoder(FakeEncoder()) as encoder,
        service_processes(tmp_path, encoder) as (retrieval, ranking),
    ):
        stack = StackUnderTest(tmp_path, retrieval.address, ranking.address)
        environment = {**os.environ, "ZHIYIN_RETRIEVAL_ADDRESS": retrieval.address, "ZHIYIN_STATE_DIR": str(tmp_path)}
        command = (sys.executable, "-m", "zhiyin_cli", "items", "import", str(rows), "--batch-rows", "50")
        importing = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with stack.client(retries=True) as client:
            while await _items(client) < IMPORTED // 10:
                assert importing.returncode is None, "the import ended before anything could go wrong"
                await asyncio.sleep(0.02)
            before = await _items(client)
            await retrieval.restart()
            said, _ = await importing.communicate()
            assert importing.returncode == 0, said.decode()
            assert before < IMPORTED, "the restart came too late to prove anything"
            assert await _items(client) == IMPORTED


async def _items(client: Client) -> int:
    stats = await client.retrieval.GetCatalogStats(
        retrieval_pb.GetCatalogStatsRequest(catalog="default"), timeout=DEADLINE_S
    )
    return int(stats.item_count)
