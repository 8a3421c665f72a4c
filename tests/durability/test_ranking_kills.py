"""kill -9 of the ranking service under a mixed load.

What was acknowledged is there, nothing is there by half, and the statistics equal a recount of the log. A few strikes
of each activity here; `make verify` goes on until there are hundreds.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.durability.kill_rounds import NewStore, Strikes, service_process, sqlite_file, under_load, until_under_way
from tests.durability.ranking_load import ERASE, RECORD, RULE, STREAM, UPSERT, Load

SNAPSHOT = "snapshot"
ROUNDS_PER_DIRECTORY = 20
_WITHIN_S = {RECORD: 0.01, STREAM: 0.05, UPSERT: 0.005, ERASE: 0.01, RULE: 0.005, SNAPSHOT: 0.002}


async def kill_rounds(folder: Path, wanted: int, new_store: NewStore = sqlite_file, seed: int = 7) -> Strikes:
    """Kills until every activity was struck `wanted` times; returns the count.

    Args:
        folder: For data directories, several one after another.
        wanted: Strikes of each activity.
        new_store: Makes the store of a data directory.
        seed: Of the dice.
    """
    dice = random.Random(seed)
    strikes = Strikes(RECORD, STREAM, UPSERT, ERASE, RULE, SNAPSHOT)
    while strikes.lacking(wanted):
        data = folder / f"after-{strikes.rounds}-kills"
        url = new_store(data)
        load = Load(strikes, seed=strikes.rounds)
        for _ in range(ROUNDS_PER_DIRECTORY):
            if not strikes.lacking(wanted):
                break
            await one_round(data, url, load, strikes, strikes.next_target(wanted, dice), dice)
            await load.check_store(data, url)
        assert load.acknowledged > 20
    return strikes


async def one_round(data: Path, url: str, load: Load, strikes: Strikes, target: str, dice: random.Random) -> None:
    """Starts the service on what the last kill left, puts it under load and kills it amid `target`."""
    flags = ["--data-dir", str(data), "--snapshot-every-events", "100"]
    flags += ["--store-url", url] if url else []
    async with service_process("ranking_service", flags) as service:
        await load.repeat_acknowledged(service)

        def saving() -> bool:
            return any((data / "statistics").glob("*.tmp"))

        async with under_load(service, load.start(service)):
            await asyncio.sleep(dice.uniform(0.05, 0.4))
            await until_under_way(
                saving if target == SNAPSHOT else lambda: strikes.in_flight[target] > 0, dice, _WITHIN_S[target]
            )
            service.kill()
            strikes.note([])
    if saving():  # the file that a snapshot is written to before it is renamed
        strikes.counts[SNAPSHOT] += 1


async def test_what_was_acknowledged_survives_kills_of_ranking(tmp_path: Path) -> None:
    strikes = await kill_rounds(tmp_path, wanted=5)
    assert min(strikes.counts.values()) >= 5


@pytest.mark.long
@pytest.mark.timeout(3000)
async def test_three_hundred_strikes_of_every_activity_of_ranking(tmp_path: Path) -> None:
    strikes = await kill_rounds(tmp_path, wanted=300, seed=11)
    print(f"ranking: {strikes.rounds} kills struck {dict(strikes.counts)}")
    assert min(strikes.counts.values()) >= 300
