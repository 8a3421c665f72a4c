"""What a call came to, in the words of the table."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.failures.stack_under_test import DEADLINE_S, ENCODER_TIMEOUT_S, RETRIEVAL_TIMEOUT_S


@dataclass(frozen=True)
class Outcome:
    """Attributes:
    answer: `OK` and what is missing, or the code and reason.
    time: A class of times, not a time.
    retry: Whether a refusal said when to come back, in both ways clients look for.
    """

    answer: str
    time: str
    retry: bool = False

    @property
    def cell(self) -> str:
        return f"{self.answer}, {self.time}"


async def outcome_of(call: Callable[[], Awaitable[Any]], patient_limit: str) -> Outcome:
    """Makes the call.

    Args:
        call: To be made.
        patient_limit: The setting that bounds its longer wait.
    """
    started = time.monotonic()
    try:
        reply = await call()
    except grpc.aio.AioRpcError as error:
        seconds = time.monotonic() - started
        reason, retry = _details(error)
        return Outcome(_refused(error.code(), reason), _time_class(seconds, patient_limit), retry)
    seconds = time.monotonic() - started
    return Outcome(_said(reply), _time_class(seconds, patient_limit))


def _refused(code: grpc.StatusCode, reason: str) -> str:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return code.name  # whether the server says so with a reason or the client gives up first is a matter of luck
    return f"{code.name} `{reason}`"


def _said(reply: Any) -> str:
    degraded = getattr(reply, "degraded", ())
    if hasattr(reply, "items") and hasattr(reply, "stage_timings"):
        kind = "a list" if reply.items else "an empty list"
        missing = ", ".join(
            f"`{entry.component}` {entry.reason}" for entry in sorted(degraded, key=lambda e: e.component)
        )
        return f"{kind}; degraded: {missing}" if missing else kind
    return "OK"


def _details(error: grpc.aio.AioRpcError) -> tuple[str, bool]:
    status = rpc_status.from_call(error)
    reason, retry_info = "", False
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            reason = info.reason
        retry_info = retry_info or detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
    pushback = any(key == "grpc-retry-pushback-ms" for key, _ in error.trailing_metadata() or ())
    assert retry_info == pushback, "RetryInfo and the trailer go together"
    return reason, retry_info


def _time_class(seconds: float, patient_limit: str) -> str:
    if seconds < 0.7 * ENCODER_TIMEOUT_S:
        return "at once"
    if seconds < (ENCODER_TIMEOUT_S + RETRIEVAL_TIMEOUT_S) / 2:
        return "within `encoder_timeout_s`"
    if seconds < (RETRIEVAL_TIMEOUT_S + DEADLINE_S) / 2:
        return f"within `{patient_limit}`"
    return "at the deadline" if seconds < DEADLINE_S + 1 else f"NOT BOUNDED: {seconds:.1f} s"
