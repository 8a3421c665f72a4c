"""Answers the batches of a stream in the order they came, several in work at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


async def answered_in_order(
    requests: AsyncIterator[Q], answer: Callable[[Q], Awaitable[A]], in_work: int
) -> AsyncGenerator[A, None]:
    """Yields the answer to every request, in order.

    Args:
        requests: Read on only while there is room; further ones wait in the caller, by gRPC's flow control.
        answer: Makes one answer. What it raises ends the stream.
        in_work: Requests read ahead of the oldest unanswered one.
    """
    room = asyncio.Semaphore(in_work)
    answers: asyncio.Queue[asyncio.Future[A] | None] = asyncio.Queue()
    started: set[asyncio.Future[A]] = set()

    async def read_on() -> None:
        try:
            await room.acquire()
            async for request in requests:
                task = asyncio.ensure_future(answer(request))
                started.add(task)
                answers.put_nowait(task)
                await room.acquire()
        finally:
            answers.put_nowait(None)

    reader = asyncio.create_task(read_on())
    try:
        while (task := await answers.get()) is not None:
            yield await task
            started.discard(task)
            room.release()
        await reader
    finally:
        # A caller that went away takes its unfinished work along.
        reader.cancel()
        for running in started:
            running.cancel()
        await asyncio.gather(reader, *started, return_exceptions=True)
