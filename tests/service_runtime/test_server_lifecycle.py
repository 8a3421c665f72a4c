"""Health, readiness, reflection and drain, on real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from benchmarks.stack import free_ports
from service_runtime.errors import InvalidRequest, Violation
from service_runtime.server import LIVENESS, RunningServer, running_server
from service_runtime.settings import ServerSettings
from tests.service_runtime.scripted_service import ScriptedService
from zhiyin.encoder.v1 import encoder_service_pb2 as pb
from zhiyin.encoder.v1 import encoder_service_pb2_grpc as pb_grpc
from zhiyin_client import client_channel_options

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health_of(address: str, service: str) -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)).status


async def eventually(address: str, service: str, status: int) -> None:
    for _ in range(200):
        if await health_of(address, service) == status:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{service!r} never became {status}")


async def test_alive_at_once_and_ready_only_after_the_start() -> None:
    service = ScriptedService(start_s=0.5)
    running = RunningServer(service, ServerSettings(drain_delay_s=0))
    await running.open()
    starting = asyncio.create_task(running.start())
    try:
        assert await health_of(running.address, LIVENESS) == SERVING
        assert await health_of(running.address, "") == NOT_SERVING
        async with grpc.aio.insecure_channel(running.address, options=[("grpc.enable_retries", 0)]) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await pb_grpc.EncoderServiceStub(channel).Embed(pb.EmbedRequest(texts=["x"]), timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await starting
        assert await health_of(running.address, "") == SERVING
        assert await health_of(running.address, service.full_name) == SERVING
    finally:
        await running.stop()
    assert service.closed


async def test_readiness_follows_the_services_own_state() -> None:
    service = ScriptedService()
    async with running_server(service, ServerSettings(drain_delay_s=0)) as address:
        await eventually(address, "", SERVING)
        service.not_ready = "the index is being rebuilt"
        await eventually(address, "", NOT_SERVING)
        assert await health_of(address, LIVENESS) == SERVING
        service.not_ready = None
        await eventually(address, "", SERVING)


async def test_draining_finishes_running_calls_and_serves_those_that_come_while_balancers_notice() -> None:
    entered = asyncio.Event()

    async def slow(_: pb.EmbedRequest) -> pb.EmbedResponse:
        entered.set()
        await asyncio.sleep(0.6)
        return pb.EmbedResponse(cached_count=7)

    running = RunningServer(ScriptedService(slow), ServerSettings(drain_delay_s=0.3, grace_s=5))
    await running.open()
    await running.start()
    async with grpc.aio.insecure_channel(running.address) as channel:
        stub = pb_grpc.EncoderServiceStub(channel)
        early = asyncio.ensure_future(stub.Embed(pb.EmbedRequest(texts=["x"]), timeout=5))
        await entered.wait()
        stopping = asyncio.create_task(running.stop())
        await eventually(running.address, "", NOT_SERVING)
        late = asyncio.ensure_future(stub.Embed(pb.EmbedRequest(texts=["y"]), timeout=5))
        assert (await early).cached_count == 7
        assert (await late).cached_count == 7
        await stopping


async def test_reflection_lists_the_service() -> None:
    async with (
        running_server(ScriptedService(), ServerSettings(drain_delay_s=0)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for answer in stub.ServerReflectionInfo(iter([request])):
            names = {service.name for service in answer.list_services_response.service}
            break
    assert {"zhiyin.encoder.v1.EncoderService", "grpc.health.v1.Health"} <= names


async def test_metrics_count_calls_by_code_and_hold_no_text(unused_tcp_port: int) -> None:
    async def script(request: pb.EmbedRequest) -> pb.EmbedResponse:
        if request.texts[0] == "refuse-this-secret":
            raise InvalidRequest([Violation("texts[0]", "no")])
        return pb.EmbedResponse()

    settings = ServerSettings(drain_delay_s=0, metrics_port=unused_tcp_port)
    async with (
        running_server(ScriptedService(script), settings) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = pb_grpc.EncoderServiceStub(channel)
        before = await metrics(unused_tcp_port)
        await stub.Embed(pb.EmbedRequest(texts=["a"]), timeout=5)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Embed(pb.EmbedRequest(texts=["refuse-this-secret"]), timeout=5)
        after = await metrics(unused_tcp_port)
    for code in ("OK", "INVALID_ARGUMENT"):
        line = f'zhiyin_rpc_handled_total{{code="{code}",method="/zhiyin.encoder.v1.EncoderService/Embed"}}'
        assert after.get(line, 0) == before.get(line, 0) + 1
    assert not any("secret" in line for line in after)


async def test_an_ipv6_address_works_like_any_other(unused_tcp_port: int) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    settings = ServerSettings(host="::1", drain_delay_s=0, metrics_port=unused_tcp_port)
    async with running_server(ScriptedService(), settings) as address:
        assert await health_of(address, LIVENESS) == SERVING
        assert address.startswith("[::1]:")


@pytest.mark.parametrize("which", ["port", "metrics_port"])
async def test_a_taken_port_is_named(which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"127.0.0.1:{port}"):
            async with running_server(ScriptedService(), ServerSettings(drain_delay_s=0, **{which: port})):
                pass


async def metrics(port: int) -> dict[str, float]:
    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return answer.read().decode()

    lines = (await asyncio.to_thread(read)).splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


async def test_calls_that_arrive_as_a_server_stops_are_served_by_its_successor() -> None:
    """gRPC answers CANCELLED to calls that had arrived and were not read yet."""
    (port,) = free_ports(1)
    settings = ServerSettings(port=port, drain_delay_s=0)
    first = RunningServer(ScriptedService(), settings)
    await first.open()
    await first.start()
    served: list[int] = []
    under_way = threading.Event()

    def call_without_pause() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}", client_channel_options()) as channel:
            embed = pb_grpc.EncoderServiceStub(channel).Embed
            embed(pb.EmbedRequest(texts=["connected"]), timeout=20)
            under_way.set()
            answers = [embed.future(pb.EmbedRequest(texts=["x"]), timeout=20) for _ in range(400)]
            served.extend(answer.result().cached_count for answer in answers)

    calling = asyncio.create_task(asyncio.to_thread(call_without_pause))
    await asyncio.to_thread(under_way.wait)
    await asyncio.sleep(0.02)
    await first.stop()
    async with running_server(ScriptedService(), settings):
        await calling
    assert served == [1] * 400
