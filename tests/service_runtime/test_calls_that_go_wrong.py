"""Clients that leave, send rubbish, stall or are too many: nothing runs on for nobody, and every refusal has a name."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from service_runtime.errors import ZhiyinError
from service_runtime.grpc_types import ServicerContext
from service_runtime.server import RunningServer
from service_runtime.settings import ServerSettings
from tests.service_runtime.scripted_service import Script, ScriptedService, answer
from zhiyin.encoder.v1 import encoder_service_pb2 as pb
from zhiyin.encoder.v1 import encoder_service_pb2_grpc as pb_grpc

EMBED = "/zhiyin.encoder.v1.EncoderService/Embed"
EMBED_STREAM = "/zhiyin.encoder.v1.EncoderService/EmbedStream"
ONE = pb.EmbedRequest(texts=["x"])
BATCH = pb.EmbedStreamRequest(batch_number=1, texts=["x"])


@asynccontextmanager
async def serving(
    service: ScriptedService, **changes: object
) -> AsyncIterator[tuple[RunningServer, grpc.aio.Channel, pb_grpc.EncoderServiceStub]]:
    running = RunningServer(service, ServerSettings(**{"drain_delay_s": 0.0, "grace_s": 5.0, **changes}))
    await running.open()
    await running.start()
    try:
        async with grpc.aio.insecure_channel(running.address, options=[("grpc.enable_retries", 0)]) as channel:
            yield running, channel, pb_grpc.EncoderServiceStub(channel)
    finally:
        await running.stop()


class Endless:
    """A script that never answers and tells how it ended."""

    def __init__(self) -> None:
        self.entered, self.ended = asyncio.Event(), asyncio.Event()

    async def __call__(self, _: pb.EmbedRequest) -> pb.EmbedResponse:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        raise AssertionError("unreachable")


async def test_a_handler_ends_when_its_caller_goes_away() -> None:
    script = Endless()
    async with serving(ScriptedService(script)) as (_, _, stub):
        call = stub.Embed(ONE)
        await asyncio.wait_for(script.entered.wait(), 10)
        call.cancel()
        await asyncio.wait_for(script.ended.wait(), 10)


async def test_a_stream_ends_when_its_caller_goes_away() -> None:
    script = Endless()
    async with serving(ScriptedService(script)) as (_, _, stub):
        stream = stub.EmbedStream()
        await stream.write(BATCH)
        await asyncio.wait_for(script.entered.wait(), 10)
        stream.cancel()
        await asyncio.wait_for(script.ended.wait(), 10)


async def test_nothing_runs_on_in_a_stream_after_its_deadline() -> None:
    script = Endless()
    async with serving(ScriptedService(script)) as (_, _, stub):
        stream = stub.EmbedStream(iter([BATCH]), timeout=0.3)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(script.ended.wait(), 10)


class Flood(ScriptedService):
    """Answers one request with more than any window takes."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    def register(self, server: grpc.aio.Server) -> None:
        service = self

        class Servicer(pb_grpc.EncoderServiceServicer):
            async def EmbedStream(
                self, requests: AsyncIterator[pb.EmbedStreamRequest], context: ServicerContext
            ) -> AsyncIterator[pb.EmbedStreamResponse]:
                try:
                    while True:
                        yield pb.EmbedStreamResponse(embedded={"truncated": [True] * 60_000})
                finally:
                    service.ended.set()

        pb_grpc.add_EncoderServiceServicer_to_server(Servicer(), server)


async def test_a_caller_that_does_not_read_holds_nothing_beyond_its_deadline() -> None:
    service = Flood()
    async with serving(service) as (running, _, stub):
        stream = stub.EmbedStream(iter([BATCH]), timeout=0.5)
        await stream.read()
        await asyncio.wait_for(service.ended.wait(), 10)
        assert running._interceptor.in_flight == 0


@pytest.mark.parametrize("raw", [b"\x0a\x02\xff\xfe", b"\x0a\xff\xff"], ids=["not UTF-8", "no protobuf"])
async def test_bytes_that_are_no_message_are_the_callers_fault(raw: bytes) -> None:
    async with serving(ScriptedService()) as (_, channel, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(EMBED)(raw, timeout=5)
        assert_invalid(caught.value)


async def test_bytes_that_are_no_message_end_a_stream_after_what_came_before() -> None:
    async with serving(ScriptedService()) as (_, channel, _):
        stream = channel.stream_stream(EMBED_STREAM)(iter([BATCH.SerializeToString(), b"\x0a\xff\xff"]), timeout=5)
        assert pb.EmbedStreamResponse.FromString(await stream.read()).batch_number == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert_invalid(caught.value)


def assert_invalid(error: grpc.aio.AioRpcError) -> None:
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in rpc_status.from_call(error).details)
    assert "UTF-8" in bad.field_violations[0].description


async def test_a_message_beyond_the_bound_is_refused_before_it_is_read() -> None:
    async with serving(ScriptedService(), max_message_bytes=1 << 16) as (_, _, stub):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Embed(pb.EmbedRequest(texts=["x" * 70_000]), timeout=5)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "65536" in caught.value.details()
        assert (await stub.Embed(ONE, timeout=5)).cached_count == 1


async def test_calls_beyond_the_bound_are_told_when_to_come_back_and_health_still_answers() -> None:
    gate = asyncio.Event()

    async def script(_: pb.EmbedRequest) -> pb.EmbedResponse:
        await gate.wait()
        return pb.EmbedResponse()

    async with serving(ScriptedService(script), max_concurrent_rpcs=2) as (_, channel, stub):
        calls = [asyncio.ensure_future(stub.Embed(ONE, timeout=10)) for _ in range(5)]
        done, waiting = set(), set(calls)
        while len(done) < 3:
            done, waiting = await asyncio.wait(waiting | done, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        for refused in done:
            error = refused.exception()
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "grpc-retry-pushback-ms" in dict(error.trailing_metadata())
        request = health_pb2.HealthCheckRequest(service="")
        assert (await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)).status == 1
        gate.set()
        await asyncio.gather(*waiting)
        await stub.Embed(ONE, timeout=5)


async def test_stopping_waits_neither_for_watchers_of_health_nor_for_idle_streams() -> None:
    async with serving(ScriptedService(), grace_s=300) as (running, channel, stub):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        await watch.read()
        stream = stub.EmbedStream()
        await stream.write(BATCH)
        assert (await stream.read()).batch_number == 1
        await asyncio.wait_for(running.stop(), 30)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "not acknowledged" in caught.value.details()


async def test_a_stream_acknowledges_what_it_was_at_when_the_stop_came() -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def script(_: pb.EmbedRequest) -> pb.EmbedResponse:
        entered.set()
        await gate.wait()
        return pb.EmbedResponse()

    async with serving(ScriptedService(script), grace_s=60) as (running, _, stub):
        stream = stub.EmbedStream()
        await stream.write(BATCH)
        await asyncio.wait_for(entered.wait(), 10)
        stopping = asyncio.create_task(running.stop())
        await asyncio.sleep(0.1)
        gate.set()
        assert (await stream.read()).batch_number == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.wait_for(stopping, 30)


async def test_a_call_that_outlasts_the_grace_is_cut() -> None:
    script = Endless()
    async with serving(ScriptedService(script), grace_s=0.3) as (running, _, stub):
        call = asyncio.ensure_future(stub.Embed(ONE, timeout=60))
        await asyncio.wait_for(script.entered.wait(), 10)
        started = time.monotonic()
        await asyncio.wait_for(running.stop(), 30)
        assert script.ended.is_set()
        assert time.monotonic() - started >= 0.3
        with pytest.raises(grpc.aio.AioRpcError):
            await call


async def test_a_wrong_call_leaves_the_next_one_alone() -> None:
    """An exception of any kind ends its own call only."""
    kinds: list[BaseException] = [RuntimeError("x"), ZhiyinError("bare"), StopAsyncIteration(), GeneratorExit()]

    async def script(request: pb.EmbedRequest) -> pb.EmbedResponse:
        if kinds:
            raise kinds.pop()
        return await answer(request)

    chosen: Script = script
    async with serving(ScriptedService(chosen)) as (running, _, stub):
        while kinds:
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Embed(ONE, timeout=5)
        assert (await stub.Embed(ONE, timeout=5)).cached_count == 1
        assert running._interceptor.in_flight == 0


async def test_a_stream_that_stalls_is_ended_after_all_it_sent_is_answered() -> None:
    async with serving(ScriptedService(), stream_idle_s=0.3) as (_, _, stub):
        stream = stub.EmbedStream()
        await stream.write(BATCH)
        assert (await stream.read()).batch_number == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.ABORTED
        assert "open a new stream" in caught.value.details()


async def test_thousands_of_streams_leave_room_for_other_calls() -> None:
    async with serving(ScriptedService(), max_streams=50, max_concurrent_rpcs=200) as (_, channel, stub):
        leaving = asyncio.Event()

        async def stalling() -> AsyncIterator[pb.EmbedStreamRequest]:
            yield BATCH
            await leaving.wait()

        async def outcome(stream: grpc.aio.StreamStreamCall[Any, Any]) -> grpc.StatusCode | None:
            try:
                return None if (await stream.read()).batch_number == 1 else grpc.StatusCode.OK
            except grpc.aio.AioRpcError as error:
                if error.details() == "Internal error from Core":
                    return grpc.StatusCode.RESOURCE_EXHAUSTED  # what this client says of a call that was over already
                return error.code()

        streams = [stub.EmbedStream(stalling()) for _ in range(3000)]
        outcomes = Counter(await asyncio.gather(*map(outcome, streams)))
        assert outcomes == {None: 50, grpc.StatusCode.RESOURCE_EXHAUSTED: 2950}
        assert (await stub.Embed(ONE, timeout=10)).cached_count == 1
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest(service=""), timeout=10)).status == 1
        leaving.set()  # their places are free again
        for _ in range(100):
            found = await outcome(stub.EmbedStream(stalling()))
            if found is None:
                break
            await asyncio.sleep(0.05)
        assert found is None
