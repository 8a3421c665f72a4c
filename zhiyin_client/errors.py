"""Every error of a call, as one tree; each class says what the caller does about it.

ZhiyinError
├── InvalidRequest       INVALID_ARGUMENT, OUT_OF_RANGE       change the request; `violations` has every fault
├── NotFound             NOT_FOUND                            name something that exists; `resource`
├── AlreadyExists        ALREADY_EXISTS                       choose another id; `resource`
├── FailedPrecondition   FAILED_PRECONDITION                  an operator changes the deployment; `reason`
│   └── SpaceMismatch      reason SPACE_MISMATCH              use vectors of the model that serves
├── Conflict             ABORTED                              read again and repeat
├── AccessRefused        UNAUTHENTICATED, PERMISSION_DENIED   another token or certificate
├── Overloaded           RESOURCE_EXHAUSTED with a hint       wait `retry_after_s`, then repeat
├── LimitReached         RESOURCE_EXHAUSTED without one       give something up first; waiting does not help
├── DeadlineExceeded     DEADLINE_EXCEEDED                    give more time
├── Unavailable          UNAVAILABLE, CANCELLED by a server   repeat later; retries within the deadline were made
└── ServiceFault         anything else                        a bug: the log of the service has `request_id`
"""

from __future__ import annotations

import grpc

from zhiyin_client.refusals import Refusal, Resource, Violation, from_rpc_error


class ZhiyinError(Exception):
    """A call failed. The text is for people; everything a program needs is in the attributes."""

    def __init__(self, refusal: Refusal, method: str = "", request_id: str = "") -> None:
        self.refusal = refusal
        self.method = method
        """Such as `Recommend`."""
        self.request_id = request_id
        """What the logs of the services know the call by."""
        shown = [f"  {violation.field}: {violation.description}" for violation in refusal.violations]
        super().__init__("\n".join([f"{method}: {refusal}" if method else str(refusal), *shown]))

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status code."""
        return self.refusal.code

    @property
    def reason(self) -> str:
        """The stable reason, such as `STORE_FULL` (docs/errors.md lists them); empty when gRPC itself says no."""
        return self.refusal.reason

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Everything wrong with the request, each with the path of its field."""
        return self.refusal.violations

    @property
    def retry_after_s(self) -> float | None:
        """When the same call may succeed, as the server says; None: it does not."""
        return self.refusal.retry_after_s

    @property
    def resource(self) -> Resource | None:
        """What does not exist, or exists already."""
        return self.refusal.resource


class InvalidRequest(ZhiyinError):
    """The request breaks the contract."""


class NotFound(ZhiyinError):
    """Something that the request names does not exist."""


class AlreadyExists(ZhiyinError):
    """Something with this id exists and is different."""


class FailedPrecondition(ZhiyinError):
    """The deployment is not in a state to serve the request."""


class SpaceMismatch(FailedPrecondition):
    """Vectors of two different models would have met."""


class Conflict(ZhiyinError):
    """The stored revision is not the expected one."""


class AccessRefused(ZhiyinError):
    """The server, or a proxy before it, does not let this caller in."""


class Overloaded(ZhiyinError):
    """A bounded queue is full; nothing was spent on the call."""


class LimitReached(ZhiyinError):
    """There are as many of something as may be kept, or a message is too large."""


class DeadlineExceeded(ZhiyinError):
    """No answer came in time. A write may have happened; repeating it is safe."""


class Unavailable(ZhiyinError):
    """A service, or one that it needs, does not serve."""


class ServiceFault(ZhiyinError):
    """A bug of a service, or an answer that is none of ours."""


_CLASSES: dict[grpc.StatusCode, type[ZhiyinError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.UNAUTHENTICATED: AccessRefused,
    grpc.StatusCode.PERMISSION_DENIED: AccessRefused,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
}


def error_of(failed: grpc.RpcError, method: str, request_id: str) -> ZhiyinError:
    """The error that a failed call means for its caller."""
    refusal = from_rpc_error(failed)
    return _class_of(refusal)(refusal, method, request_id)


def _class_of(refusal: Refusal) -> type[ZhiyinError]:
    if refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return LimitReached if refusal.retry_after_s is None else Overloaded
    if refusal.reason == "SPACE_MISMATCH":
        return SpaceMismatch
    return _CLASSES.get(refusal.code, ServiceFault)
