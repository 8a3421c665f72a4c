"""Both clients behind one face, and real services for them."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from benchmarks.stack import free_ports
from tests.failures.service_processes import ServiceProcess, service_processes
from tests.zhiyin_client.scripted_server import ScriptedServer, running
from zhiyin_client import AsyncClient, Client, Targets

_END = object()
_catalogs = itertools.count(1)


class Awaited:
    """A Client whose calls run in a thread: what a test awaits of it, it says of AsyncClient in the same words."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._client, name)
        if not callable(member):
            return member
        if name in ("session", "in_catalog"):
            return lambda *arguments: Awaited(member(*arguments))
        if inspect.isgeneratorfunction(member):
            return lambda *arguments, **named: _one_by_one(member(*arguments, **named))

        async def call(*arguments: Any, **named: Any) -> Any:
            return await asyncio.to_thread(member, *arguments, **named)

        return call


async def _one_by_one(values: Iterator[Any]) -> AsyncIterator[Any]:
    while (value := await asyncio.to_thread(next, values, _END)) is not _END:
        yield value


@contextlib.asynccontextmanager
async def opened(kind: str, *arguments: Any, **named: Any) -> AsyncIterator[Any]:
    """A client of this kind."""
    if kind == "async":
        async with AsyncClient(*arguments, **named) as client:
            yield client
    else:
        with Client(*arguments, **named) as client:
            yield Awaited(client)


@pytest.fixture(params=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass
class Services:
    """Real processes: encoder (hashes for a model), retrieval and ranking."""

    encoder: ServiceProcess
    retrieval: ServiceProcess
    ranking: ServiceProcess

    @property
    def targets(self) -> Targets:
        return Targets(self.encoder.address, self.retrieval.address, self.ranking.address)


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("services")
    (port,) = free_ports(1)
    model = ("--model-dir", str(folder / "model"), "--drain-delay-s", "0")
    encoder = ServiceProcess("tests.failures.light_encoder", folder, port, *model)
    with asyncio.Runner() as runner, contextlib.ExitStack() as cleanup:
        runner.run(encoder.start())
        cleanup.callback(encoder.kill)
        processes = service_processes(folder, encoder.address, "--stream-idle-s", "1")
        retrieval, ranking = runner.run(processes.__aenter__())
        cleanup.callback(lambda: runner.run(processes.__aexit__(None, None, None)))
        yield Services(encoder, retrieval, ranking)


@pytest.fixture
async def client(kind: str, services: Services) -> AsyncIterator[Any]:
    """Of a catalogue of its own."""
    async with opened(kind, services.targets, catalog=f"catalog-{next(_catalogs)}", timeout=20.0) as client:
        await client.create_catalog()
        yield client


@pytest.fixture
def script() -> ScriptedServer:
    return ScriptedServer()


@pytest.fixture
def scripted_address(script: ScriptedServer) -> Iterator[str]:
    with running(script) as address:
        yield address
