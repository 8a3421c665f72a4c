"""Around every call: its context, deadline, metrics, and the only conversion from an exception to a gRPC status."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from service_runtime.admission import Door
from service_runtime.errors import (
    AlreadyExists,
    DeadlineTooShort,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    QuotaReached,
    ZhiyinError,
)
from service_runtime.grpc_types import RpcMethodHandler, ServicerContext
from service_runtime.request_context import Deadline, RequestContext, enter
from service_runtime.request_messages import Requests, readable, tolerant
from service_runtime.rpc_metrics import metrics_of
from service_runtime.telemetry import get_logger

_log = get_logger(__name__)
ERROR_DOMAIN = "zhiyin"
# A status travels in headers, 8 KiB of them in all with most servers and proxies. Its text is there twice: as it is,
# percent-encoded (three bytes for one when it is Chinese), and within the details, as base64.
_MAX_MESSAGE_BYTES = 500
_RETRY_AFTER_S = 0.1  # calls take milliseconds: by then many of those that are served have ended
_RETRY_STREAM_AFTER_S = 2.0  # streams last longer
_UNGUARDED = ("/grpc.",)  # health, reflection and channelz answer while the service is not ready
_Status = tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]
"""Code, text and trailers."""


class StatusInterceptor(grpc.aio.ServerInterceptor):
    """Serves each call inside its context and turns what it raises into a status with details.

    Args:
        default_deadline_s: Given to calls that have none.
        refusal: Says why no call can be served now (starting, draining), or None.
        max_in_flight: Calls served at once; more are refused with Overloaded. Health checks do not count: a service
            that is busy must not look dead.
        max_streams: Of those, streams of requests; so streams never take all the room.
        stream_idle_s: Longest silence of a caller in a stream, in seconds.
        doors: By full name of a method that answers one request with one response; methods may share one.
    """

    def __init__(
        self,
        default_deadline_s: float,
        refusal: Callable[[], str | None],
        max_in_flight: int,
        max_streams: int,
        stream_idle_s: float,
        doors: Mapping[str, Door] | None = None,
    ) -> None:
        self._default_deadline_s = default_deadline_s
        self._refusal = refusal
        self._max_in_flight, self._max_streams, self._stream_idle_s = max_in_flight, max_streams, stream_idle_s
        self._streams = 0
        self._doors = doors or {}
        self._stopping = asyncio.Event()
        self.in_flight = 0

    def end_streams(self) -> None:
        """Lets every open stream finish what it has read and then end with NotReady."""
        self._stopping.set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[RpcMethodHandler | None]],
        details: grpc.HandlerCallDetails,
    ) -> RpcMethodHandler | None:
        """Wraps the handler of the called method."""
        handler = await continuation(details)
        method = details.method
        if handler is None or method.startswith(_UNGUARDED):
            return handler
        door = self._doors.get(method)
        if door is not None and (full := door.refusal()) is not None:
            return _refused(method, full)
        request_id = next((v for k, v in details.invocation_metadata or () if k == "x-request-id"), "")
        request_id = str(request_id)[:128] or uuid.uuid4().hex
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[bool(handler.request_streaming), bool(handler.response_streaming)]
        behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        wrap = self._wrap_streaming if handler.response_streaming else self._wrap_unary
        return make(
            wrap(behaviour, method, request_id, bool(handler.request_streaming)),
            request_deserializer=tolerant(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _wrap_unary(self, behaviour: Any, method: str, request_id: str, requests: bool) -> Any:
        async def call(request: Any, context: ServicerContext) -> Any:
            with _Measured(self, method) as measured:
                try:
                    deadline = self._enter(method, request_id, context)
                    incoming = self._stream(request) if requests else readable(request)
                    async with asyncio.timeout(max(deadline.remaining(), 0)):
                        async with _inside(self._doors.get(method), deadline):
                            response = await behaviour(incoming, context)
                    if isinstance(incoming, Requests):
                        incoming.require_whole()
                    measured.code = grpc.StatusCode.OK
                    return response
                except Exception as error:
                    await _abort(context, error, measured)

        return call

    def _wrap_streaming(self, behaviour: Any, method: str, request_id: str, requests: bool) -> Any:
        async def call(request: Any, context: ServicerContext) -> AsyncIterator[Any]:
            with _Measured(self, method) as measured:
                try:
                    self._enter(method, request_id, context, streaming=True)
                    incoming = self._stream(request) if requests else readable(request)
                    # No timeout here: gRPC cancels the handler of a stream when its deadline passes.
                    with self._counted(requests):
                        async with contextlib.aclosing(behaviour(incoming, context)) as responses:
                            async for response in responses:
                                yield response
                    if isinstance(incoming, Requests):
                        incoming.require_whole()
                    measured.code = grpc.StatusCode.OK
                except Exception as error:
                    await _abort(context, error, measured)

        return call

    def _stream(self, requests: AsyncIterator[Any]) -> Requests:
        return Requests(requests, self._stopping, self._stream_idle_s)

    @contextlib.contextmanager
    def _counted(self, stream: bool) -> Iterator[None]:
        if stream and self._streams >= self._max_streams:
            raise Overloaded(f"the room for {self._max_streams} streams at once", _RETRY_STREAM_AFTER_S)
        self._streams += stream
        try:
            yield
        finally:
            self._streams -= stream

    def _enter(self, method: str, request_id: str, context: ServicerContext, streaming: bool = False) -> Deadline:
        refusal = self._refusal()
        if refusal is not None:
            raise NotReady(refusal)
        if self.in_flight > self._max_in_flight:
            raise Overloaded(f"the room for {self._max_in_flight} calls at once", _RETRY_AFTER_S)
        remaining = context.time_remaining()
        # A stream without a deadline may run for hours; each of its batches gets the default where it waits.
        default = 86_400.0 if streaming else self._default_deadline_s
        deadline = Deadline.after(default if remaining is None else min(float(remaining), 86_400.0))
        enter(RequestContext(request_id, deadline, method))
        return deadline


@contextlib.asynccontextmanager
async def _inside(door: Door | None, deadline: Deadline) -> AsyncIterator[None]:
    if door is None:
        yield
        return
    await door.enter(deadline.remaining())
    entered = time.monotonic()
    try:
        yield
    finally:
        door.leave(time.monotonic() - entered)


def _refused(method: str, error: Overloaded) -> RpcMethodHandler:
    """A handler that says no. It does not read the request: that is half the cost of a refusal."""

    async def refuse(_requests: AsyncIterator[bytes], context: ServicerContext) -> None:
        metrics = metrics_of(method)
        metrics.handled(error.code.name)
        metrics.failed(error.reason)
        code, details, trailers = _overload_status(error.what, error.retry_after_s)
        context.set_trailing_metadata(trailers)
        context.set_code(code)
        context.set_details(details)

    return grpc.stream_stream_rpc_method_handler(refuse)


class _Measured:
    """Counts one call in and out."""

    def __init__(self, interceptor: StatusInterceptor, method: str) -> None:
        self._interceptor, self._metrics = interceptor, metrics_of(method)
        self.code = grpc.StatusCode.CANCELLED  # what it stays when the caller goes away
        self.reason = ""

    def __enter__(self) -> _Measured:
        self._started = time.monotonic()
        self._interceptor.in_flight += 1
        self._metrics.in_flight.inc()
        return self

    def __exit__(self, *_: object) -> None:
        self._interceptor.in_flight -= 1
        self._metrics.in_flight.dec()
        self._metrics.seconds.observe(time.monotonic() - self._started)
        self._metrics.handled(self.code.name)
        if self.reason:
            self._metrics.failed(self.reason)


async def _abort(context: ServicerContext, error: Exception, measured: _Measured) -> None:
    """Ends the call with the status of `error`. Always raises."""
    if isinstance(error, grpc.aio.AbortError):
        measured.code = grpc.StatusCode.UNKNOWN
        raise error
    if isinstance(error, TimeoutError):
        error = DeadlineTooShort("the deadline passed while the call was served")
    if not isinstance(error, ZhiyinError):
        _log.error("unexpected_error", error=type(error).__name__, exc_info=error)
        measured.code, measured.reason = grpc.StatusCode.INTERNAL, "INTERNAL"
        await context.abort(
            grpc.StatusCode.INTERNAL, "internal error; the log of the service tells more under this call's request id"
        )
    assert isinstance(error, ZhiyinError)
    measured.code, measured.reason = error.code, error.reason
    if type(error) is Overloaded and error.retry_after_s is not None:
        code, details, trailers = _overload_status(error.what, error.retry_after_s)
    else:
        code, details, trailers = _status_of(error)
    context.set_trailing_metadata(trailers)
    await context.abort(code, details, trailers)


@functools.lru_cache(maxsize=512)
def _overload_status(what: str, retry_after_s: float) -> _Status:
    """Made once for each hint: thousands may be refused in a second."""
    return _status_of(Overloaded(what, retry_after_s))


def _status_of(error: ZhiyinError) -> _Status:
    """Code, text and trailers."""
    status = rpc_status.to_status(to_status_proto(error))
    trailers = tuple(status.trailing_metadata)
    if error.retry_after_s is not None:
        trailers += (("grpc-retry-pushback-ms", str(max(1, int(error.retry_after_s * 1000)))),)
    return status.code, status.details, trailers


def to_status_proto(error: ZhiyinError) -> status_pb2.Status:
    """The error as google.rpc.Status: ErrorInfo always, and what else helps the caller to recover."""
    details: list[Message] = []
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN)
    details.append(info)
    if isinstance(error, InvalidRequest):
        bad = error_details_pb2.BadRequest()
        for violation in error.violations[:100]:  # trailers are bounded: 100 fit into 8 KiB of the common proxies
            bad.field_violations.add(field=_clip(violation.field, 200), description=_clip(violation.description, 400))
        details.append(_bounded(bad))
    if isinstance(error, (NotFound, AlreadyExists)):
        details.append(error_details_pb2.ResourceInfo(resource_type=error.kind, resource_name=_clip(error.name, 256)))
    if isinstance(error, (Overloaded, QuotaReached)):
        quota = error_details_pb2.QuotaFailure()
        quota.violations.add(subject=error.what, description=_clip(error.message, 400))
        details.append(quota)
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(retry)
    packed = []
    for detail in details:
        holder = AnyProto()
        holder.Pack(detail)
        packed.append(holder)
    code = code_pb2.Code.Value(error.code.name)
    return status_pb2.Status(code=code, message=_clip(error.message, _MAX_MESSAGE_BYTES), details=packed)


def _bounded(bad: error_details_pb2.BadRequest, max_bytes: int = 4000) -> error_details_pb2.BadRequest:
    """Drops the last violations until the trailer fits into what proxies let through; says how many are missing."""
    dropped = 0
    while bad.ByteSize() > max_bytes:
        del bad.field_violations[-1]
        dropped += 1
    if dropped:
        bad.field_violations.add(field="", description=f"and {dropped} more violations that did not fit")
    return bad


def _clip(text: str, max_bytes: int) -> str:
    """The beginning of a text, in whole characters."""
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= max_bytes else encoded[: max_bytes - 3].decode(errors="ignore") + "..."
