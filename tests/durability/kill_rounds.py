"""What the kill suites of both services share: a real service process, and a count of what each kill struck.

A round starts the service on what the last kill left, checks it, puts it under load, and kills it while a chosen
activity is under way. Several activities run at once and one kill strikes them all, so a suite goes on until each was
struck often enough.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from zhiyin_cli.process_group import free_port

NewStore = Callable[[Path], str]
"""Gives a fresh store its URL, from the data directory it belongs to; the empty string is the SQLite file in there."""


def sqlite_file(_data_dir: Path) -> str:
    """The store that a service uses by itself."""
    return ""


class Strikes:
    """Which activities are under way, and how often each was when the process was killed."""

    def __init__(self, *activities: str) -> None:
        self.counts = Counter(dict.fromkeys(activities, 0))
        self.rounds = 0
        self.in_flight: Counter[str] = Counter()

    @contextlib.contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Marks an activity as under way; it stays so when the block ends with an error, as it does at a kill."""
        self.in_flight[activity] += 1
        yield
        self.in_flight[activity] -= 1

    def note(self, background: Collection[str]) -> None:
        """Counts a kill: `background` is under way in the service beside the calls that wait for an answer."""
        self.rounds += 1
        self.counts.update({name for name, calls in self.in_flight.items() if calls > 0} | set(background))
        self.in_flight.clear()

    def lacking(self, wanted: int) -> list[str]:
        """Activities that were not struck often enough, the rarest first."""
        return [name for name, count in reversed(self.counts.most_common()) if count < wanted]

    def next_target(self, wanted: int, dice: random.Random) -> str:
        """What to strike next: half of the time what is rarest, else anything."""
        return self.lacking(wanted)[0] if dice.random() < 0.5 else dice.choice(list(self.counts))


@dataclass
class ServiceProcess:
    """A service as it is deployed: `python -m ...` on a free port."""

    process: asyncio.subprocess.Process
    address: str
    channel: grpc.aio.Channel
    log: deque[dict[str, object]] = field(default_factory=lambda: deque(maxlen=500))
    killed: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.killed = True
        os.kill(self.pid, signal.SIGKILL)  # Process.kill may take the exit code from under asyncio

    def logged(self, event: str) -> list[dict[str, object]]:
        return [line for line in self.log if line.get("event") == event]


@contextlib.asynccontextmanager
async def service_process(
    module: str,
    flags: Sequence[str],
    *,
    prefix: Sequence[str] = (),
    ready_within_s: float = 60.0,
    stderr: BinaryIO | None = None,
    meanwhile: Callable[[ServiceProcess], Awaitable[None]] | None = None,
) -> AsyncIterator[ServiceProcess]:
    """Starts a service, waits until it is ready, and kills it at the end.

    Args:
        module: Such as `ranking_service`.
        flags: Of the service; the port is chosen here.
        prefix: A command that runs the command, such as strace.
        ready_within_s: Longest wait.
        stderr: Where its log goes; None: it is read here.
        meanwhile: Awaited once it listens, before it is ready.
    """
    port = 0 if stderr is None else free_port()
    command = [*prefix, sys.executable, "-m", module, "--port", str(port), "--metrics-port", "0", *flags]
    process = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE if stderr is None else stderr, limit=1 << 20
    )
    log: deque[dict[str, object]] = deque(maxlen=500)
    raw: deque[bytes] = deque(maxlen=50)
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def read_log() -> None:
        if process.stderr is None:
            address.set_result(f"127.0.0.1:{port}")
            return
        async for line in process.stderr:
            raw.append(line)
            with contextlib.suppress(ValueError):
                log.append(event := json.loads(line))
                if event.get("event") == "listening" and not address.done():
                    address.set_result(str(event["address"]))
        if not address.done():
            address.set_exception(AssertionError(f"{module} ended before it listened: {b''.join(raw).decode()}"))

    reading = asyncio.create_task(read_log())
    try:
        target = await asyncio.wait_for(address, ready_within_s)
        async with grpc.aio.insecure_channel(target) as channel:
            service = ServiceProcess(process, target, channel, log)
            if meanwhile is not None:
                await asyncio.wait_for(meanwhile(service), ready_within_s)
            try:
                await _ready(service, ready_within_s)
            except AssertionError as error:
                raise AssertionError(f"{error}: {b''.join(raw).decode()}") from None
            yield service
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        await reading


async def _ready(service: ServiceProcess, within_s: float) -> None:
    health = health_pb2_grpc.HealthStub(service.channel)
    give_up = time.monotonic() + within_s
    while time.monotonic() < give_up and service.process.returncode is None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            answer = await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=5)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
        await asyncio.sleep(0.02)
    raise AssertionError("the service did not become ready")


async def until_under_way(
    is_under_way: Callable[[], bool], dice: random.Random, up_to_s: float, *, give_up_s: float = 3.0
) -> None:
    """Waits for an activity and then for a random time within it."""
    give_up = time.monotonic() + give_up_s
    while not is_under_way() and time.monotonic() < give_up:
        await asyncio.sleep(0.001)
    await asyncio.sleep(dice.uniform(0.0, up_to_s))


@contextlib.asynccontextmanager
async def under_load(service: ServiceProcess, actors: Collection[asyncio.Task[None]]) -> AsyncIterator[None]:
    """Callers work while the block runs and until the service is gone; none may fail before it was killed."""
    try:
        yield
    finally:
        if not service.killed:
            service.kill()
        results = await asyncio.gather(*actors, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def until_killed(service: ServiceProcess, turn: Callable[[], Awaitable[None]]) -> None:
    """Repeats a caller's turn until the service is gone; an error before that is the service's fault."""
    try:
        while True:
            await turn()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:  # the latter: a write to a broken stream
        if not service.killed:
            raise AssertionError(f"a call failed though nobody had killed the service: {error}") from error
