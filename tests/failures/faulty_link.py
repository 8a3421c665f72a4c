"""A TCP link between two services that can be told to fail the ways networks and hosts do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import Enum

_CHUNK = 65_536


class Link(Enum):
    """What the link does with connections, those that are open and new ones."""

    PASS = "passes"
    CLOSED = "resets what is open and refuses what is new, as a host whose process is gone"
    FROZEN = "accepts and never says a word, as a host that hangs"
    SLOW = "holds every byte for `delay_s`"
    JUNK = "answers with bytes of another protocol"


class FaultyLink:
    """Listens on a free port of loopback and passes on to `target`, host:port."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.address = ""
        self.delay_s = 10.0
        self._link = Link.PASS
        self._port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Starts to listen; on the same port again after `CLOSED`."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"

    async def turn(self, link: Link, target: str | None = None) -> None:
        """Changes what the link does. Open connections stay where hosts would keep them: frozen and slow links.

        Args:
            link: From now on.
            target: Pass on to another address; open connections are reset.
        """
        was, self._link = self._link, link
        if target is not None and target != self.target:
            self.target = target
            await self._reset()
        if link in (Link.CLOSED, Link.JUNK) or was is Link.JUNK:
            await self._reset()
        if link is Link.CLOSED:
            await self._stop_listening()
        elif self._server is None:
            await self.open()

    async def close(self) -> None:
        """Ends everything."""
        await self._stop_listening()
        await self._reset()

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _reset(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            try:
                if self._link is Link.JUNK:
                    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\nnot gRPC")
                    await writer.drain()
                    return
                await self._thaw()
                there_reader, there_writer = await asyncio.open_connection(*self.target.split(":"))
                try:
                    async with asyncio.TaskGroup() as both:
                        both.create_task(self._pump(reader, there_writer))
                        both.create_task(self._pump(there_reader, writer))
                except* (_Ended, OSError):
                    pass
                finally:
                    there_writer.transport.abort()
            finally:
                writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._thaw()
            if self._link is Link.SLOW:
                await self._while(Link.SLOW, self.delay_s)
            writer.write(data)
            await writer.drain()
        raise _Ended

    async def _thaw(self) -> None:
        await self._while(Link.FROZEN, float("inf"))

    async def _while(self, link: Link, seconds: float) -> None:
        # Polls, so that a link that is healed lets go of what it held, as a network does when it comes back.
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._link is link and loop.time() < until:
            await asyncio.sleep(0.05)


class _Ended(Exception):
    """One side closed the connection."""


@contextlib.asynccontextmanager
async def faulty_link(target: str) -> AsyncIterator[FaultyLink]:
    link = FaultyLink(target)
    await link.open()
    try:
        yield link
    finally:
        await link.close()
