"""What a caller sends, as a handler gets to see it: readable messages, and the end of a stream when the server stops.

gRPC itself answers UNKNOWN or lets a stream fail with a DecodeError when a message is no protobuf or a string in it is
no UTF-8. That is the caller's fault and has to be told like every other: see `tolerant` and `Requests`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from google.protobuf.message import DecodeError

from service_runtime.errors import InvalidRequest, NotReady, StreamIdle, Violation, ZhiyinError

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
    """The requests of one stream, until the caller ends it, says nothing for too long, or the server stops.

    In the last two cases the handler sees an ordinary end, acknowledges what it has read, and returns; `require_whole`
    then tells why the caller was not heard out. Otherwise streams that stay open for hours would hold every stop up for
    its whole grace, and those that were forgotten would hold their place for good.

    Args:
        requests: What the caller sends.
        stopping: Set when the server stops.
        idle_s: Longest silence of a caller, in seconds.
    """

    def __init__(self, requests: AsyncIterator[Any], stopping: asyncio.Event, idle_s: float) -> None:
        self._requests, self._stopping, self._idle_s = requests, stopping, idle_s
        self._ended_by: ZhiyinError | None = None

    def require_whole(self) -> None:
        """Nothing, when the caller said all there was to say.

        Raises:
            NotReady: The server stops.
            StreamIdle: The caller was silent for too long.
        """
        if self._ended_by is not None:
            raise self._ended_by

    async def __aiter__(self) -> AsyncIterator[Any]:
        requests = aiter(self._requests)
        stop = asyncio.ensure_future(self._stopping.wait())
        coming: asyncio.Future[Any] | None = None
        try:
            while not self._stopping.is_set():
                coming = asyncio.ensure_future(_next(requests))
                await asyncio.wait({coming, stop}, timeout=self._idle_s, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    break
                message = coming.result()
                if message is None:
                    return
                yield readable(message)
            self._ended_by = (
                NotReady("the service is stopping; send what was not acknowledged again")
                if self._stopping.is_set()
                else StreamIdle(self._idle_s)
            )
        finally:
            stop.cancel()
            if coming is not None:
                coming.cancel()


async def _next(requests: AsyncIterator[Any]) -> Any:
    # None at the end: a task must not end with StopAsyncIteration.
    return await anext(requests, None)
