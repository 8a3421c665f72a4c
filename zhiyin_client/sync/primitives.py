"""What waiting means here. The module of the same name under `aio` says what it means there; all else is one code."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import grpc

T = TypeVar("T")
Rows = Iterable[T]
"""Rows as they come: a list or a generator."""
Queue = queue.SimpleQueue
sleep = time.sleep


def each(rows: Rows[T]) -> Iterator[T]:
    """Row after row."""
    yield from rows


def open_channel(target: str, options: list[tuple[str, Any]], credentials: grpc.ChannelCredentials | None) -> Any:
    """A channel; connects when first used."""
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)


class PendingCall:
    """A unary call that was started; its answer is asked for later."""

    def __init__(self, method: Any, request: Any, timeout: float, metadata: Any) -> None:
        self._call = method.future(request, timeout=timeout, metadata=metadata)

    def answer(self) -> Any:
        """Waits for it. Raises grpc.RpcError."""
        return self._call.result()

    def cancel(self) -> None:
        """Abandons it."""
        self._call.cancel()
