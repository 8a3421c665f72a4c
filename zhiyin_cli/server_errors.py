"""Errors of the services in a form that people and the import can read.

A unary call fails with a status and google.rpc details, one batch of a stream with a BatchError; both say the same,
so both become a Refusal.
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from zhiyin.common.v1 import error_pb2


@dataclass(frozen=True)
class Refusal:
    """Why the server refused something."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    violations: tuple[tuple[str, str], ...] = ()
    """Pairs of a field's path and what is wrong with it."""
    retry_after_s: float | None = None

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed later."""
        return self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)

    def __str__(self) -> str:
        head = f"{self.code.name} ({self.reason})" if self.reason else self.code.name
        return f"{head}: {self.message}"


class ServerRefused(Exception):
    """The server refused a request of a command."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def from_batch_error(error: error_pb2.BatchError) -> Refusal:
    """Reads the error of one batch."""
    return Refusal(
        code=_CODES.get(error.code, grpc.StatusCode.UNKNOWN),
        message=error.message,
        reason=error.reason,
        violations=tuple((violation.field, violation.description) for violation in error.violations),
        retry_after_s=error.retry_after.ToTimedelta().total_seconds() if error.HasField("retry_after") else None,
    )


def from_rpc_error(error: grpc.RpcError) -> Refusal:
    """Reads the status of a failed call with its google.rpc details."""
    assert isinstance(error, grpc.Call)
    violations: list[tuple[str, str]] = []
    reason = ""
    retry_after_s = None
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad_request = error_details_pb2.BadRequest()
            detail.Unpack(bad_request)
            violations += [(violation.field, violation.description) for violation in bad_request.field_violations]
        elif detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason = info.reason
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    return Refusal(error.code(), error.details() or "", reason, tuple(violations), retry_after_s)
