"""Calls as a careful client makes them: with the shipped retry config, writes repeated until they are answered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceStub
from zhiyin_cli.stack import StackPorts
from zhiyin_client import client_channel_options

R = TypeVar("R")
_TRY_AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}
_DEADLINE_S = 20.0


@dataclass
class Tally:
    """Calls by name, refusals by name and code, and (when, seconds) of the reads that people wait for."""

    calls: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    latencies: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))


class Client:
    """Stubs with a tally. Use as an asynchronous context."""

    def __init__(self, ports: StackPorts) -> None:
        self.tally = Tally()
        self._channels = [
            grpc.aio.insecure_channel(address, client_channel_options())
            for address in (ports.retrieval_address, ports.ranking_address)
        ]
        self.retrieval = RetrievalServiceStub(self._channels[0])
        self.ranking = RankingServiceStub(self._channels[1])

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for channel in self._channels:
            await channel.close()

    async def read(self, name: str, method: Callable[..., Awaitable[R]], request: Any) -> R | None:
        """One call; None where the service could not serve it."""
        self.tally.calls[name] += 1
        began = time.monotonic()
        try:
            answer = await method(request, timeout=_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            self._note(name, error)
            return None
        self.tally.latencies[name].append((began, time.monotonic() - began))
        return answer

    async def write(self, name: str, call: Callable[[], Awaitable[R]]) -> R:
        """Repeats a write until it is acknowledged; every write of the soak may be repeated."""
        while True:
            self.tally.calls[name] += 1
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                self._note(name, error)
                await asyncio.sleep(0.2)

    def _note(self, name: str, error: grpc.aio.AioRpcError) -> None:
        self.tally.refused[f"{name} {error.code().name}"] += 1
        if error.code() not in _TRY_AGAIN:
            raise error
