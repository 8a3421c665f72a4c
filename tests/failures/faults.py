"""The faults of the table: what is wrong, how it is brought about, and what is called meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.failures import nonsense_servers
from tests.failures.faulty_link import Link
from tests.failures.nonsense_servers import TwistedEncoder
from tests.failures.outcomes import Outcome, outcome_of
from tests.failures.service_processes import ServiceProcess
from tests.failures.stack_under_test import ITEMS, StackUnderTest, running_retrieval
from tests.retrieval_service.fake_encoder_server import FakeEncoder, running_fake_encoder
from tests.retrieval_service.retrieval_harness import many_items

_HEALS_WITHIN_S = 15.0
_AWAY_S = 1.0

Bring = Callable[[StackUnderTest], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        title: In the words of an operator.
        bring: Within it the fault is there.
        retries: Whether the caller retries as clients are told to.
    """

    title: str
    bring: Bring
    retries: bool = False


async def observe(stack: StackUnderTest, fault: Fault, patient_limit: str) -> dict[str, Outcome]:
    """What every call comes to while the fault lasts; then waits until everything is as before."""
    async with stack.client(fault.retries) as client:
        calls = client.calls(10.0) if fault.retries else client.calls()
        async with fault.bring(stack):
            outcomes = await asyncio.gather(*(outcome_of(call, patient_limit) for call in calls.values()))
        await _healed(stack, fault)
    if fault.retries:
        outcomes = [Outcome(o.answer, o.time if o.time == "at once" else "once it is back") for o in outcomes]
    return dict(zip(calls, outcomes, strict=True))


async def _healed(stack: StackUnderTest, fault: Fault) -> None:
    async with stack.client() as client, asyncio.timeout(_HEALS_WITHIN_S):
        while True:
            calls = client.calls()
            outcomes = await asyncio.gather(*(outcome_of(call, "") for call in calls.values()))
            ill = {name: o.answer for name, o in zip(calls, outcomes, strict=True) if o.answer not in ("OK", "a list")}
            if not ill:
                return
            await asyncio.sleep(0.1)


def encoder_faults() -> list[Fault]:
    return [
        Fault("down: its host answers, the port is closed", _link("encoder", Link.CLOSED)),
        Fault("refuses every call with UNAVAILABLE", _answering("encoder", nonsense_servers.refuses)),
        Fault("refuses every call as overloaded", _answering("encoder", nonsense_servers.is_overloaded)),
        Fault("fails on every call with INTERNAL", _answering("encoder", nonsense_servers.has_a_bug)),
        Fault("hangs: accepts and never answers", _link("encoder", Link.FROZEN)),
        Fault("slow by 10 s", _link("encoder", Link.SLOW)),
        Fault("speaks another protocol", _link("encoder", Link.JUNK)),
        Fault("answers bytes that are no message", _answering("encoder", nonsense_servers.sends_no_message)),
        Fault("answers vectors with NaN", _twisted(lambda: TwistedEncoder(nonsense_servers.with_nan))),
        Fault("answers one vector too few", _twisted(lambda: TwistedEncoder(nonsense_servers.one_too_few))),
        Fault("answers vectors of another length", _twisted(lambda: TwistedEncoder(nonsense_servers.of_other_length))),
        Fault("has another model (fingerprint)", _twisted(lambda: FakeEncoder("another-space"))),
        Fault("restarts, away for a second; the caller retries as clients are told to", _away("encoder"), retries=True),
    ]


def retrieval_faults() -> list[Fault]:
    return [
        Fault("down: its host answers, the port is closed", _link("retrieval", Link.CLOSED)),
        Fault("refuses every call with UNAVAILABLE", _answering("retrieval", nonsense_servers.refuses)),
        Fault("refuses every call as overloaded", _answering("retrieval", nonsense_servers.is_overloaded)),
        Fault("fails on every call with INTERNAL", _answering("retrieval", nonsense_servers.has_a_bug)),
        Fault("hangs: accepts and never answers", _link("retrieval", Link.FROZEN)),
        Fault("slow by 10 s", _link("retrieval", Link.SLOW)),
        Fault("speaks another protocol", _link("retrieval", Link.JUNK)),
        Fault("answers bytes that are no message", _answering("retrieval", nonsense_servers.sends_no_message)),
        Fault("answers hits that point at no item", _answering("retrieval", nonsense_servers.points_at_nothing)),
        Fault("answers scores and vectors with NaN", _answering("retrieval", nonsense_servers.scores_with_nan)),
        Fault("has another model (fingerprint)", _another_catalogue),
        Fault(
            "restarts, away for a second; the caller retries as clients are told to", _away("retrieval"), retries=True
        ),
    ]


def store_faults(processes: Sequence[ServiceProcess]) -> list[Fault]:
    return [
        Fault("locked by another process for 10 s", _locked),
        Fault("cannot grow: the disk is full", lambda _: _full(processes)),
    ]


def _link(name: str, kind: Link) -> Bring:
    @contextlib.asynccontextmanager
    async def bring(stack: StackUnderTest) -> AsyncIterator[None]:
        await stack.links[name].turn(kind)
        try:
            yield
        finally:
            await stack.links[name].turn(Link.PASS)

    return bring


def _away(name: str) -> Bring:
    @contextlib.asynccontextmanager
    async def bring(stack: StackUnderTest) -> AsyncIterator[None]:
        await stack.links[name].turn(Link.CLOSED)

        async def come_back() -> None:
            await asyncio.sleep(_AWAY_S)
            await stack.links[name].turn(Link.PASS)

        back = asyncio.create_task(come_back())
        yield
        await back

    return bring


@contextlib.asynccontextmanager
async def _replaced(stack: StackUnderTest, name: str, address: str) -> AsyncIterator[None]:
    link = stack.links[name]
    honest = link.target
    await link.turn(Link.PASS, address)
    try:
        yield
    finally:
        await link.turn(Link.PASS, honest)


def _answering(name: str, answer: nonsense_servers.Answer) -> Bring:
    @contextlib.asynccontextmanager
    async def bring(stack: StackUnderTest) -> AsyncIterator[None]:
        async with nonsense_servers.serving(answer=answer) as address, _replaced(stack, name, address):
            yield

    return bring


def _twisted(make: Callable[[], FakeEncoder]) -> Bring:
    @contextlib.asynccontextmanager
    async def bring(stack: StackUnderTest) -> AsyncIterator[None]:
        async with running_fake_encoder(make()) as address, _replaced(stack, "encoder", address):
            yield

    return bring


@contextlib.asynccontextmanager
async def _another_catalogue(stack: StackUnderTest) -> AsyncIterator[None]:
    """The same items under another model, where ranking expects the catalogue it knows."""
    async with (
        running_fake_encoder(FakeEncoder("another-space")) as encoder,
        running_retrieval(stack.folder / "another", encoder) as address,
    ):
        other = StackUnderTest(stack.folder, address, stack.ranking_address)
        async with other.client() as client:
            await client.upsert(many_items(ITEMS))
        async with _replaced(stack, "retrieval", address):
            yield


@contextlib.asynccontextmanager
async def _locked(stack: StackUnderTest) -> AsyncIterator[None]:
    files = (stack.folder / "retrieval" / "items.sqlite3", stack.folder / "ranking" / "users.sqlite3")
    others = [_lock(path) for path in files]
    try:
        yield
    finally:
        for other in others:
            other.rollback()
            other.close()


def _lock(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


@contextlib.asynccontextmanager
async def _full(processes: Sequence[ServiceProcess]) -> AsyncIterator[None]:
    for process in processes:
        process.limit_file_size(0)
    try:
        yield
    finally:
        for process in processes:
            process.limit_file_size(None)
