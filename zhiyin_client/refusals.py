"""Why a server refused something, read from what came over the wire so that nobody has to parse a text.

A unary call fails with a status and google.rpc details, one batch of a stream with a BatchError; both say the same, so
both become a Refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from zhiyin.common.v1 import error_pb2

_DETAILS_TRAILER = "grpc-status-details-bin"
_PUSHBACK_TRAILER = "grpc-retry-pushback-ms"
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MessageT = TypeVar("_MessageT", bound=Message)


class Violation(NamedTuple):
    """One thing wrong with a request."""

    field: str
    """Path of the field, such as `items[3].title`."""
    description: str
    """What is wrong and what to change."""


class Resource(NamedTuple):
    """What does not exist, or exists already."""

    type: str
    """Such as `catalog` or `item`."""
    name: str


@dataclass(frozen=True)
class Refusal:
    """Why the server refused something."""

    code: grpc.StatusCode
    message: str
    """For people; may change between releases."""
    reason: str = ""
    """Stable, such as `SPACE_MISMATCH`. Empty: gRPC itself says no, not one of our services."""
    violations: tuple[Violation, ...] = ()
    """Every violation of an invalid request."""
    retry_after_s: float | None = None
    """When the same request may succeed; None: the server does not say."""
    resource: Resource | None = None

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed later."""
        return self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)

    def __str__(self) -> str:
        head = f"{self.code.name} ({self.reason})" if self.reason else self.code.name
        return f"{head}: {self.message}"


class _FailedCall(Protocol):
    """What failed calls have in common, sync and async; the type stubs of gRPC draw no such line."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> object: ...


def from_batch_error(error: error_pb2.BatchError) -> Refusal:
    """Reads the error of one batch."""
    return Refusal(
        code=_CODES.get(error.code, grpc.StatusCode.UNKNOWN),
        message=error.message,
        reason=error.reason,
        violations=tuple(Violation(violation.field, violation.description) for violation in error.violations),
        retry_after_s=error.retry_after.ToTimedelta().total_seconds() if error.HasField("retry_after") else None,
    )


def from_rpc_error(error: grpc.RpcError) -> Refusal:
    """Reads the status of a failed call with its google.rpc details."""
    call: _FailedCall = error
    trailers = _trailers(call)
    status = _parsed(status_pb2.Status, trailers.get(_DETAILS_TRAILER, b""))
    bad_request = _detail(status, error_details_pb2.BadRequest)
    resource = _detail(status, error_details_pb2.ResourceInfo)
    return Refusal(
        code=call.code(),
        message=call.details() or "",
        reason=_detail(status, error_details_pb2.ErrorInfo).reason,
        violations=tuple(Violation(wrong.field, wrong.description) for wrong in bad_request.field_violations),
        retry_after_s=_retry_after_s(status, trailers),
        resource=Resource(resource.resource_type, resource.resource_name) if resource.resource_type else None,
    )


def _trailers(call: _FailedCall) -> dict[str, bytes]:
    pairs = call.trailing_metadata() or ()
    return {key: value if isinstance(value, bytes) else str(value).encode() for key, value in pairs}  # type: ignore[attr-defined]


def _detail(status: status_pb2.Status, kind: type[_MessageT]) -> _MessageT:
    """The detail of this kind; an empty one where there is none or it cannot be read."""
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            return _parsed(kind, packed.value)
    return kind()


def _parsed(kind: type[_MessageT], data: bytes) -> _MessageT:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError:  # not from one of ours; code and text still say something
        return kind()
    return message


def _retry_after_s(status: status_pb2.Status, trailers: dict[str, bytes]) -> float | None:
    retry = _detail(status, error_details_pb2.RetryInfo)
    if retry.HasField("retry_delay"):
        return float(retry.retry_delay.ToTimedelta().total_seconds())
    pushback = trailers.get(_PUSHBACK_TRAILER, b"")
    return int(pushback) / 1000 if pushback.isdigit() else None
