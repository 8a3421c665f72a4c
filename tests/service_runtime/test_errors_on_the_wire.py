"""What a caller receives when a handler raises: status, google.rpc details, trailers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from service_runtime import errors, request_context
from service_runtime.channels import open_channel
from service_runtime.server import running_server
from service_runtime.settings import ServerSettings
from tests.service_runtime.scripted_service import ScriptedService
from zhiyin.encoder.v1 import encoder_service_pb2 as pb
from zhiyin.encoder.v1 import encoder_service_pb2_grpc as pb_grpc


def settings(**changes: object) -> ServerSettings:
    return ServerSettings(**{"drain_delay_s": 0.0, "grace_s": 5.0, **changes})


async def call(error: Exception, **kwargs: object) -> grpc.aio.AioRpcError:
    async def script(_: pb.EmbedRequest) -> pb.EmbedResponse:
        raise error

    async with running_server(ScriptedService(script), settings()) as address, open_plain(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.EncoderServiceStub(channel).Embed(pb.EmbedRequest(texts=["x"]), timeout=5, **kwargs)
        return caught.value


def open_plain(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=[("grpc.enable_retries", 0)])


def details(error: grpc.aio.AioRpcError) -> dict[str, object]:
    status = rpc_status.from_call(error)
    found: dict[str, object] = {}
    kinds: Iterable[type] = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
        error_details_pb2.QuotaFailure,
        error_details_pb2.ResourceInfo,
    )
    for detail in status.details:
        for kind in kinds:
            if detail.Is(kind.DESCRIPTOR):
                message = kind()
                detail.Unpack(message)
                found[kind.__name__] = message
    return found


async def test_every_violation_reaches_the_caller() -> None:
    violations = [errors.Violation(f"items[{i}].id", "is empty; give an id") for i in range(5)]
    error = await call(errors.InvalidRequest(violations))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = details(error)
    assert [v.field for v in found["BadRequest"].field_violations] == [v.field for v in violations]
    assert found["ErrorInfo"].reason == "INVALID_REQUEST"
    assert found["ErrorInfo"].domain == "zhiyin"


async def test_a_flood_of_violations_still_arrives_and_says_that_more_were_found() -> None:
    violations = [errors.Violation(f"items[{i}].attributes[name]", "x" * 200) for i in range(1000)]
    found = details(await call(errors.InvalidRequest(violations)))
    listed = found["BadRequest"].field_violations
    assert len(listed) >= 10
    assert "more" in listed[-1].description


async def test_overload_says_when_to_retry_in_both_ways_clients_look_for() -> None:
    error = await call(errors.Overloaded("the write queue", 1.5))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    found = details(error)
    assert found["RetryInfo"].retry_delay.ToMilliseconds() == 1500
    assert found["QuotaFailure"].violations[0].subject == "the write queue"
    assert ("grpc-retry-pushback-ms", "1500") in [(k, v) for k, v in error.trailing_metadata()]


async def test_a_missing_thing_is_named() -> None:
    found = details(await call(errors.NotFound("catalog", "shop")))
    assert found["ErrorInfo"].reason == "CATALOG_NOT_FOUND"
    assert found["ResourceInfo"].resource_name == "shop"


async def test_a_bug_shows_nothing_of_its_text() -> None:
    error = await call(RuntimeError("secret profile text"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error.details())


@pytest.mark.parametrize(
    "error",
    [
        errors.AlreadyExists("event", "e1"),
        errors.SpaceMismatch("a", "b"),
        errors.RevisionConflict("revision 3, expected 2"),
        errors.DeadlineTooShort("no time"),
        errors.DependencyUnavailable("encoder", "down"),
        errors.StoreUnavailable("disk full"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_each_error_arrives_with_its_own_code_and_reason(error: errors.ZhiyinError) -> None:
    received = await call(error)
    assert received.code() is error.code
    assert details(received)["ErrorInfo"].reason == error.reason


async def test_a_call_without_a_deadline_gets_the_default() -> None:
    async def script(_: pb.EmbedRequest) -> pb.EmbedResponse:
        await asyncio.sleep(30)
        return pb.EmbedResponse()

    async with (
        running_server(ScriptedService(script), settings(default_deadline_s=0.2, grace_s=0)) as address,
        open_plain(address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.EncoderServiceStub(channel).Embed(pb.EmbedRequest(texts=["x"]))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_handlers_see_the_callers_deadline_and_request_id_and_pass_the_id_on() -> None:
    seen: list[request_context.RequestContext] = []
    left: list[float] = []

    async def inner(_: pb.EmbedRequest) -> pb.EmbedResponse:
        seen.append(request_context.current())
        return pb.EmbedResponse()

    onward_to = running_server(ScriptedService(inner), settings())
    async with onward_to as inner_address, open_channel(inner_address) as onward:

        async def outer(request: pb.EmbedRequest) -> pb.EmbedResponse:
            context = request_context.current()
            seen.append(context)
            left.append(context.deadline.remaining())
            timeout = context.deadline.child_timeout()
            return await pb_grpc.EncoderServiceStub(onward).Embed(request, timeout=timeout)

        async with running_server(ScriptedService(outer), settings()) as address, open_plain(address) as channel:
            await pb_grpc.EncoderServiceStub(channel).Embed(
                pb.EmbedRequest(texts=["x"]), timeout=3, metadata=(("x-request-id", "abc-1"),)
            )
    assert [context.request_id for context in seen] == ["abc-1", "abc-1"]
    assert 0 < left[0] <= 3.1  # gRPC rounds a timeout up on its way (3.009 was seen)


async def test_a_stream_ends_with_the_same_status_as_a_call() -> None:
    async def script(_: pb.EmbedRequest) -> pb.EmbedResponse:
        raise errors.NotFound("catalog", "shop")

    async with running_server(ScriptedService(script), settings()) as address, open_plain(address) as channel:
        stream = pb_grpc.EncoderServiceStub(channel).EmbedStream(iter([pb.EmbedStreamRequest(texts=["x"])]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stream:
                pass
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert details(caught.value)["ErrorInfo"].reason == "CATALOG_NOT_FOUND"


def test_a_batch_error_carries_what_the_status_would() -> None:
    message = errors.to_batch_error(errors.InvalidRequest([errors.Violation("items[0].id", "is empty")]))
    assert (message.code, message.reason) == (3, "INVALID_REQUEST")
    assert message.violations[0].field == "items[0].id"
    assert errors.to_batch_error(errors.Overloaded("queue", 2)).retry_after.seconds == 2
