"""One caller at a time tries a neighbour that fails; the others are told at once instead of waiting for it in vain."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import grpc

from service_runtime.errors import DependencyUnavailable

_REST_S = 0.5


class Breaker:
    """Remembers whether a neighbour fails.

    Args:
        dependency: Its name in errors.
        timeout_s: What a call to it gets when its caller is in no hurry.
    """

    def __init__(self, dependency: str, timeout_s: float) -> None:
        self._dependency, self._timeout_s = dependency, timeout_s
        self._failing = False
        self._next_try_at = 0.0

    @contextlib.contextmanager
    def trying(self, timeout_s: float) -> Iterator[None]:
        """Around a call that may take `timeout_s`.

        Raises:
            DependencyUnavailable: The neighbour fails, and somebody else tries it now or did so a moment ago.
        """
        if self._failing and time.monotonic() < self._next_try_at:
            raise DependencyUnavailable(self._dependency, "did not answer a moment ago")
        # As long as this try can take nobody else tries.
        self._next_try_at = time.monotonic() + timeout_s + _REST_S
        try:
            yield
        except DependencyUnavailable as error:
            self._failing = self._failing or timeout_s >= self._timeout_s or not _was_slow(error)
            self._next_try_at = time.monotonic() + _REST_S
            raise
        self._failing = False


def _was_slow(error: DependencyUnavailable) -> bool:
    """Whether time ran out: of a caller in a hurry that proves nothing about the one who was asked."""
    cause = error.__cause__
    return isinstance(cause, grpc.aio.AioRpcError) and cause.code() is grpc.StatusCode.DEADLINE_EXCEEDED
