"""Every error a Zhiyin service answers with, as one tree. A class owns its gRPC status code and its stable reason.

    ZhiyinError
    ├── InvalidRequest          INVALID_ARGUMENT     INVALID_REQUEST       the caller changes the request
    ├── NotFound                NOT_FOUND            <KIND>_NOT_FOUND      the caller names something that exists
    ├── AlreadyExists           ALREADY_EXISTS       <KIND>_ALREADY_EXISTS the caller chooses another id
    ├── FailedPrecondition      FAILED_PRECONDITION  given by the raiser   an operator changes the deployment
    │   └── SpaceMismatch                            SPACE_MISMATCH        vectors of two models would meet
    ├── RevisionConflict        ABORTED              REVISION_CONFLICT     the caller reads again and repeats
    ├── Overloaded              RESOURCE_EXHAUSTED   OVERLOADED            the caller waits as long as told
    ├── QuotaReached            RESOURCE_EXHAUSTED   given by the raiser   the caller gives something up first
    ├── DeadlineTooShort        DEADLINE_EXCEEDED    DEADLINE_TOO_SHORT    the caller gives more time
    ├── DependencyUnavailable   UNAVAILABLE          <NAME>_UNAVAILABLE    the caller repeats; another service is down
    ├── StoreUnavailable        UNAVAILABLE          STORE_UNAVAILABLE     the caller repeats; an operator looks at it
    │   ├── StoreFull                                STORE_FULL            an operator makes room on the disk
    │   └── StoreReadOnly                            STORE_READ_ONLY       an operator makes the disk writable
    ├── NotReady                UNAVAILABLE          NOT_READY             the caller repeats on another replica
    └── StreamIdle              ABORTED              STREAM_IDLE           the caller opens a new stream when it goes on

Anything else that escapes a handler is a bug: INTERNAL with a fixed message, the details in the log. The conversion
to a gRPC status happens in one place, `status_interceptor`; a batch of a stream carries `to_batch_error`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import grpc

from zhiyin.common.v1 import error_pb2


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with a request.

    Attributes:
        field: Path of the field, such as `items[3].title`.
        description: What is wrong and what to change.
    """

    field: str
    description: str


class ZhiyinError(Exception):
    """Base of all errors that a caller may see."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: str = "INTERNAL"
    retry_after_s: float | None = None

    @property
    def message(self) -> str:
        """The text for people."""
        return str(self)


class InvalidRequest(ZhiyinError):
    """The request breaks the contract; carries every violation found."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        shown = "; ".join(f"{v.field}: {v.description}" for v in self.violations[:3])
        more = f" (and {len(self.violations) - 3} more)" if len(self.violations) > 3 else ""
        super().__init__(f"invalid request: {shown}{more}")


class NotFound(ZhiyinError):
    """Something that the request names does not exist."""

    code = grpc.StatusCode.NOT_FOUND

    def __init__(self, kind: str, name: str, message: str | None = None) -> None:
        self.kind, self.name = kind, name
        self.reason = f"{kind.upper()}_NOT_FOUND"
        super().__init__(message or f"{kind} {name!r} does not exist")


class AlreadyExists(ZhiyinError):
    """Something with this id exists and is different."""

    code = grpc.StatusCode.ALREADY_EXISTS

    def __init__(self, kind: str, name: str, message: str | None = None) -> None:
        self.kind, self.name = kind, name
        self.reason = f"{kind.upper()}_ALREADY_EXISTS"
        super().__init__(message or f"{kind} {name!r} exists already with other content")


class FailedPrecondition(ZhiyinError):
    """The request is fine and the deployment is not in a state to serve it."""

    code = grpc.StatusCode.FAILED_PRECONDITION

    def __init__(self, message: str, reason: str = "FAILED_PRECONDITION") -> None:
        self.reason = reason
        super().__init__(message)


class SpaceMismatch(FailedPrecondition):
    """Vectors of two different models would have met."""

    def __init__(self, expected: str, actual: str) -> None:
        self.expected, self.actual = expected, actual
        super().__init__(
            f"space fingerprint {actual!r} does not match {expected!r}: vectors of different models cannot be compared",
            reason="SPACE_MISMATCH",
        )


class RevisionConflict(ZhiyinError):
    """The stored revision is not the one the caller expected."""

    code = grpc.StatusCode.ABORTED
    reason = "REVISION_CONFLICT"


class Overloaded(ZhiyinError):
    """A bounded queue is full. Work was refused before any was spent on it."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"

    def __init__(self, what: str, retry_after_s: float) -> None:
        self.what = what
        self.retry_after_s = max(retry_after_s, 0.001)
        super().__init__(f"{what} is full; try again in {self.retry_after_s:.3f} s")


class QuotaReached(ZhiyinError):
    """There are as many of something as may be kept; waiting does not help."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, what: str, message: str, reason: str) -> None:
        self.what, self.reason = what, reason
        super().__init__(message)


class DeadlineTooShort(ZhiyinError):
    """The call cannot be answered in the time it has."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_TOO_SHORT"


class DependencyUnavailable(ZhiyinError):
    """Another service that this call needs does not answer."""

    code = grpc.StatusCode.UNAVAILABLE

    def __init__(self, dependency: str, message: str, retry_after_s: float | None = 1.0) -> None:
        self.dependency = dependency
        self.reason = f"{dependency.upper()}_UNAVAILABLE"
        self.retry_after_s = retry_after_s
        super().__init__(f"{dependency}: {message}")


class StoreUnavailable(ZhiyinError):
    """The store does not answer or cannot commit, for example because the disk is full.

    Nothing of the request was written, unless the message says that nobody knows.
    """

    code = grpc.StatusCode.UNAVAILABLE
    reason = "STORE_UNAVAILABLE"
    retry_after_s = 5.0


class StoreFull(StoreUnavailable):
    """The disk of the store is full, or a limit on the size of its files is reached. Reads go on."""

    reason = "STORE_FULL"


class StoreReadOnly(StoreUnavailable):
    """The disk of the store, or the database, takes no writes. Reads go on."""

    reason = "STORE_READ_ONLY"


class NotReady(ZhiyinError):
    """The service is starting or stopping."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "NOT_READY"
    retry_after_s = 1.0


class StreamIdle(ZhiyinError):
    """The caller of a stream said nothing for too long. All that it had sent is answered."""

    code = grpc.StatusCode.ABORTED
    reason = "STREAM_IDLE"

    def __init__(self, idle_s: float) -> None:
        super().__init__(f"no request came for {idle_s:g} s; open a new stream for what is left")


def to_batch_error(error: ZhiyinError) -> error_pb2.BatchError:
    """The same error as one batch of a stream carries it."""
    message = error_pb2.BatchError(code=error.code.value[0], reason=error.reason, message=error.message)
    if isinstance(error, InvalidRequest):
        for violation in error.violations:
            message.violations.add(field=violation.field, description=violation.description)
    if error.retry_after_s is not None:
        message.retry_after.FromNanoseconds(int(error.retry_after_s * 1e9))
    return message
