"""More calls than a service can carry: typed refusals with a hint, what was admitted answered, at ease right after.

How much of its peak a service keeps is measured by `python -m benchmarks run overload`; here nothing depends on speed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from benchmarks.stack import free_ports
from tests.failures.light_encoder import DIMENSIONS
from tests.failures.service_processes import ServiceProcess, service_processes
from tests.failures.stack_under_test import Client, StackUnderTest
from zhiyin.encoder.v1 import encoder_service_pb2 as encoder_pb
from zhiyin.encoder.v1.encoder_service_pb2_grpc import EncoderServiceStub

FLOOD = 250
DEADLINE_S = 20.0
Make = Callable[[], Awaitable[Any]]


@pytest.fixture
async def flooded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """All three services, each of which lets few in and lets nobody wait."""
    monkeypatch.setenv("ZHIYIN_TEST_SECONDS_PER_TOKEN", "0.002")
    (port,) = free_ports(1)
    flags = ("--max-wait-s", "0.01")
    encoder = ServiceProcess("tests.failures.light_encoder", tmp_path, port, "--model-dir", str(tmp_path / "m"), *flags)
    try:
        await encoder.start()
        async with service_processes(tmp_path, encoder.address, *flags) as (retrieval, ranking):
            stack = StackUnderTest(tmp_path, retrieval.address, ranking.address, dimensions=DIMENSIONS)
            async with stack.client() as client, grpc.aio.insecure_channel(encoder.address) as channel:
                await client.fill()
                yield client, EncoderServiceStub(channel), {"retrieval": retrieval, "ranking": ranking}, encoder
    finally:
        encoder.kill()


async def test_a_flood_is_refused_with_a_hint_and_leaves_nothing_behind(flooded: Any) -> None:
    client, encoder, processes, encoder_process = flooded
    processes = {**processes, "encoder": encoder_process}
    before = {name: process.rss_bytes() for name, process in processes.items()}
    for name, make in _doors(client, encoder).items():
        answers = await _flood(make)
        assert set(answers) <= {"OK", "RESOURCE_EXHAUSTED"}, (name, answers)
        assert answers["OK"] > 0, (name, answers)
        assert answers["RESOURCE_EXHAUSTED"] > 0, (name, answers)
        # Nothing of the flood is still in the way: calls one after another are all answered.
        for _ in range(3):
            await make()
    grown = {name: process.rss_bytes() - before[name] for name, process in processes.items()}
    assert max(grown.values()) < 100 << 20, grown


def _doors(client: Client, encoder: Any) -> dict[str, Make]:
    def call(name: str) -> Make:
        return lambda: client.calls(DEADLINE_S)[name]()

    numbers = iter(range(1_000_000))

    def embed() -> Awaitable[Any]:
        texts = [f"w{next(numbers)} w1 w2 w3" for _ in range(4)]
        return encoder.Embed(encoder_pb.EmbedRequest(texts=texts), timeout=DEADLINE_S)  # type: ignore[no-any-return]

    return {
        "Embed": embed,
        "Search": call("Search by vector"),
        "UpsertItems": call("UpsertItems, one item"),
        "Recommend": call("Recommend, warm user"),
        "RecordEvents": call("RecordEvents"),
    }


async def _flood(make: Make) -> Counter[str]:
    answers: Counter[str] = Counter()

    async def one() -> None:
        try:
            await make()
        except grpc.aio.AioRpcError as error:
            answers[error.code().name] += 1
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                _check_refusal(error)
        else:
            answers["OK"] += 1

    await asyncio.gather(*(one() for _ in range(FLOOD)))
    return answers


def _check_refusal(error: grpc.aio.AioRpcError) -> None:
    status = rpc_status.from_call(error)
    assert status is not None
    kinds = {detail.TypeName() for detail in status.details}
    assert {"google.rpc.ErrorInfo", "google.rpc.RetryInfo", "google.rpc.QuotaFailure"} <= kinds
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    told = dict(error.trailing_metadata() or ())["grpc-retry-pushback-ms"]
    assert 0 < int(told) <= 15_000
    assert abs(int(told) - retry.retry_delay.ToMilliseconds()) <= 1
