"""kill -9 of the retrieval service under a mixed load.

What was acknowledged is there, nothing is there by half, and the index equals the store. A few strikes of each activity
here; `make verify` goes on until there are hundreds.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.durability.kill_rounds import (
    NewStore,
    ServiceProcess,
    Strikes,
    service_process,
    sqlite_file,
    under_load,
    until_under_way,
)
from tests.durability.retrieval_load import DELETE, IMPORT, UPSERT, Load
from tests.retrieval_service.fake_encoder_server import FakeEncoder, running_fake_encoder

SNAPSHOT, REBUILD = "snapshot", "rebuild"
ROUNDS_PER_DIRECTORY = 25
# A call takes milliseconds, a snapshot or a switch to a new worker tenths of a second.
_WITHIN_S = {UPSERT: 0.01, IMPORT: 0.05, DELETE: 0.01, SNAPSHOT: 0.4, REBUILD: 0.8}


def children(service: ServiceProcess, module: str) -> list[psutil.Process]:
    """Processes of the service that run a module."""
    found = []
    for child in psutil.Process(service.pid).children():
        try:
            if f"retrieval_service.{module}" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def background(service: ServiceProcess) -> set[str]:
    """What the service does beside answering.

    A rebuild is a snapshot without the dead rows and then the switch to a second worker that loads it.
    """
    under_way = {SNAPSHOT} if children(service, "snapshot_builder") else set()
    begun = service.logged("index_maintenance")
    rebuilding = under_way and begun and begun[-1]["action"] == "take over"
    if rebuilding or len(children(service, "index_worker")) > 1:
        under_way |= {REBUILD}
    return under_way


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def kill_a_child(service: ServiceProcess, module: str, dice: random.Random) -> None:
    """Kills the index worker or the snapshot process alone: callers notice nothing."""
    await until_under_way(lambda: bool(children(service, module)), dice, 0.2)
    for child in children(service, module)[:1]:
        try:
            os.kill(child.pid, signal.SIGKILL)
        except ProcessLookupError:  # it had just finished
            return


async def kill_rounds(folder: Path, wanted: int, new_store: NewStore = sqlite_file, seed: int = 7) -> Strikes:
    """Kills until every activity was struck `wanted` times; returns the count.

    Args:
        folder: For data directories, several one after another.
        wanted: Strikes of each activity.
        new_store: Makes the store of a data directory.
        seed: Of the dice.
    """
    dice = random.Random(seed)
    strikes = Strikes(UPSERT, IMPORT, DELETE, SNAPSHOT, REBUILD)
    async with running_fake_encoder(FakeEncoder()) as encoder:
        while strikes.lacking(wanted):
            data = folder / f"after-{strikes.rounds}-kills"
            flags = ["--data-dir", str(data), "--encoder-address", encoder]
            flags += ["--graph-min-vectors", "60", "--snapshot-every-writes", "40"]
            if url := new_store(data):
                flags += ["--store-url", url]
            load = Load(strikes, seed=strikes.rounds)
            for _ in range(ROUNDS_PER_DIRECTORY):
                if not strikes.lacking(wanted):
                    break
                await one_round(flags, load, strikes, strikes.next_target(wanted, dice), dice)
            async with service_process("retrieval_service", flags) as service:
                await load.check(service)
    return strikes


async def one_round(flags: list[str], load: Load, strikes: Strikes, target: str, dice: random.Random) -> None:
    """Starts the service, checks what the last kill left, puts it under load and kills it amid `target`."""
    async with service_process("retrieval_service", flags) as service:
        await load.check(service)
        async with under_load(service, load.start(service)):
            await asyncio.sleep(dice.uniform(0.05, 0.3))
            if strikes.rounds % 5 == 1:
                await kill_a_child(service, dice.choice(["index_worker", "snapshot_builder"]), dice)

            def amid() -> bool:
                return strikes.in_flight[target] > 0 or target in background(service)

            await until_under_way(amid, dice, _WITHIN_S[target])
            processes = psutil.Process(service.pid).children()
            beside = background(service)
            service.kill()
            strikes.note(beside)
    # The worker and the snapshot process end with the service, however that went.
    give_up = time.monotonic() + 10
    while alive := [process for process in processes if is_alive(process)]:
        assert time.monotonic() < give_up, f"the service is gone and left {alive}"
        await asyncio.sleep(0.01)


async def test_what_was_acknowledged_survives_kills_of_retrieval(tmp_path: Path) -> None:
    strikes = await kill_rounds(tmp_path, wanted=5)
    assert min(strikes.counts.values()) >= 5


@pytest.mark.long
@pytest.mark.timeout(3000)
async def test_three_hundred_strikes_of_every_activity_of_retrieval(tmp_path: Path) -> None:
    strikes = await kill_rounds(tmp_path, wanted=300, seed=11)
    print(f"retrieval: {strikes.rounds} kills struck {dict(strikes.counts)}")
    assert min(strikes.counts.values()) >= 300
