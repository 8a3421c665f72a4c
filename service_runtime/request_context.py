"""What belongs to one call: its id and its deadline, readable anywhere below the handler."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass

from service_runtime.errors import DeadlineTooShort


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The moment `seconds` from now."""
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left; negative when over."""
        return self.at - time.monotonic()

    def require(self, seconds: float, what: str) -> None:
        """Refuses work that cannot be done in time, before any is spent on it.

        Raises:
            DeadlineTooShort: Less than `seconds` are left.
        """
        remaining = self.remaining()
        if remaining < seconds:
            raise DeadlineTooShort(
                f"{what} needs about {seconds:.3f} s and the deadline leaves {max(remaining, 0):.3f} s"
            )

    def child_timeout(self, cap_s: float | None = None, margin_s: float = 0.01) -> float:
        """Seconds an outgoing call may take: what is left less a margin for this hop, at most `cap_s`.

        Raises:
            DeadlineTooShort: Nothing is left.
        """
        timeout = self.remaining() - margin_s
        if timeout <= 0:
            raise DeadlineTooShort("the deadline leaves no time for a further call")
        return timeout if cap_s is None else min(timeout, cap_s)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One call.

    Attributes:
        request_id: From the caller's `x-request-id`, else made here; forwarded and logged.
        deadline: When the caller stops waiting, or the server's default.
        method: Full gRPC method, such as `/zhiyin.ranking.v1.RankingService/Recommend`.
    """

    request_id: str
    deadline: Deadline
    method: str = ""


_current: ContextVar[RequestContext | None] = ContextVar("zhiyin_request", default=None)


def current() -> RequestContext:
    """The call being served; outside of one, a context with a minute to go (background work)."""
    context = _current.get()
    return context if context is not None else RequestContext("background", Deadline.after(60.0))


def enter(context: RequestContext) -> None:
    """Makes `context` the current one for this task and those it starts."""
    _current.set(context)
