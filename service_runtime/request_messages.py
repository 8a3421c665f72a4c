"""What a caller sends, as a handler gets to see it: readable messages, and the end of a stream when the server stops.

gRPC itself answers UNKNOWN or lets a stream fail with a DecodeError when a message is no protobuf or a string in it is
no UTF-8. That is the caller's fault and has to be told like every other: see `tolerant` and `Requests`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from google.protobuf.message import DecodeError

from service_runtime.errors import InvalidRequest, Violation

_UNREADABLE: Final = object()


def tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """A deserializer that leaves it to `readable` to complain about bytes that are no message."""
    if deserialize is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _UNREADABLE

    return read


def readable(message: Any) -> Any:
    """The message, when it could be read.

    Raises:
        InvalidRequest: It could not.
    """
    if message is _UNREADABLE:
        raise InvalidRequest(
            [Violation("request", "is no message of this method, or a string in it is not UTF-8; check the encoding")]
        )
    return message


class Requests:
    """The requests of one stream, until the caller ends it or the server stops.

    At a stop the handler sees an ordinary end, acknowledges what it has read, and returns; `cut_short` then tells that
    the caller had more to say. Otherwise streams that stay open for hours would hold every stop up for its whole grace.
    """

    def __init__(self, requests: AsyncIterator[Any], stopping: asyncio.Event) -> None:
        self._requests, self._stopping = requests, stopping
        self.cut_short = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        requests = aiter(self._requests)
        stop = asyncio.ensure_future(self._stopping.wait())
        coming: asyncio.Future[Any] | None = None
        try:
            while not self._stopping.is_set():
                coming = asyncio.ensure_future(_next(requests))
                await asyncio.wait({coming, stop}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    break
                message = coming.result()
                if message is None:
                    return
                yield readable(message)
            self.cut_short = True
        finally:
            stop.cancel()
            if coming is not None:
                coming.cancel()


async def _next(requests: AsyncIterator[Any]) -> Any:
    # None at the end: a task must not end with StopAsyncIteration.
    return await anext(requests, None)
