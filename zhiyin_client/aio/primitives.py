"""What waiting means here. The module of the same name under `sync` says what it means there; all else is one code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, TypeVar

import grpc

T = TypeVar("T")
AsyncRows = Iterable[T] | AsyncIterable[T]
"""Rows as they come: a list, a generator, or an asynchronous one."""
AsyncQueue = asyncio.Queue
sleep = asyncio.sleep


async def each(rows: AsyncRows[T]) -> AsyncIterator[T]:
    """Row after row."""
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row


def open_channel(target: str, options: list[tuple[str, Any]], credentials: grpc.ChannelCredentials | None) -> Any:
    """A channel; connects when first used."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


class AsyncPendingCall:
    """A unary call that was started; its answer is asked for later."""

    def __init__(self, method: Any, request: Any, timeout: float, metadata: Any) -> None:
        self._call = method(request, timeout=timeout, metadata=metadata)

    async def answer(self) -> Any:
        """Waits for it. Raises grpc.RpcError."""
        return await self._call

    def cancel(self) -> None:
        """Abandons it."""
        self._call.cancel()
