"""The soak itself: every kind of load, restarts in the first half, none in the second to see what grows, reckoning."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.soak import actors
from benchmarks.soak.actors import CATALOG, World
from benchmarks.soak.calls import Client, Tally
from benchmarks.soak.services import NAMES, Services
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin_offline.upkeep.check import check_ranking, check_retrieval
from zhiyin_offline.upkeep.findings import Report
from zhiyin_offline.upkeep.locations import Locations

# Few users and few items that they act on: what is kept of their pairs is complete after minutes, and what grows later
# leaks.
_USERS = [f"user-{i}" for i in range(60)]
_OF_WRITERS = [[f"w{writer}-{i}" for i in range(200)] for writer in range(2)]
_IMPORTED = [f"imported-{i}" for i in range(400)]
_EVERYTHING = [*itertools.chain(*_OF_WRITERS), *_IMPORTED]
_HALF_LIFE_S = 30 * 86_400.0


@dataclass(frozen=True)
class Plan:
    """How long, and how much at once.

    Attributes:
        seconds: Of load, without start and reckoning.
        restarts: How many services are restarted in the first half, in turn, every second one by a kill.
        pause_s: Of each actor between two calls.
    """

    seconds: float
    restarts: int = 12
    pause_s: float = 0.25


@dataclass
class SoakReport:
    """What came of it.

    Attributes:
        divergences: What was not as it must be; empty is good.
        tally: Calls and latencies.
        memory: (when, MiB by service).
        away_s: Seconds that each restart took.
        began: When the load began; times as of time.monotonic().
        seconds: How long it lasted.
        proved: What the check at the end compared.
    """

    divergences: list[str]
    tally: Tally
    memory: list[tuple[float, dict[str, float]]]
    away_s: list[tuple[str, float]]
    began: float
    seconds: float
    proved: list[str] = field(default_factory=list)

    def ratios(self) -> dict[str, float]:
        """Last quarter over third quarter: memory of each service, median latency of the reads."""
        third, fourth = (self._quarter(i) for i in (2, 3))
        found = {f"memory_{name}": self._memory(name, fourth) / self._memory(name, third) for name in NAMES}
        for call in ("Recommend", "Search", "GetItems"):
            found[f"p50_{call}"] = self._p50_ms(call, fourth) / self._p50_ms(call, third)
        return {name: round(value, 3) for name, value in found.items()}

    def figures(self) -> dict[str, Any]:
        """Counts, latencies in ms and memory in MiB by quarter."""
        quarters = [self._quarter(i) for i in range(4)]
        return {
            "minutes": round(self.seconds / 60, 1),
            "divergences": len(self.divergences),
            "calls": dict(self.tally.calls),
            "refused_and_repeated": dict(self.tally.refused),
            "restarts_s": [[name, round(seconds, 1)] for name, seconds in self.away_s],
            "recommend_p50_ms_by_quarter": [round(self._p50_ms("Recommend", q), 1) for q in quarters],
            "memory_mib_by_quarter": {name: [round(self._memory(name, q), 1) for q in quarters] for name in NAMES},
            "compared_at_the_end": self.proved,
        }

    def _quarter(self, number: int) -> tuple[float, float]:
        length = self.seconds / 4
        return self.began + number * length, self.began + (number + 1) * length

    def _memory(self, name: str, between: tuple[float, float]) -> float:
        return statistics.median(m[name] for when, m in self.memory if between[0] <= when < between[1])

    def _p50_ms(self, call: str, between: tuple[float, float]) -> float:
        seen = [took for when, took in self.tally.latencies[call] if between[0] <= when < between[1]]
        return 1000 * statistics.median(seen)


async def soak(folder: Path, model_dir: Path, plan: Plan) -> SoakReport:
    """Runs the load on fresh services and compares all there is at the end.

    Args:
        folder: For data and logs.
        model_dir: Of the encoder.
        plan: How long.
    """
    async with Services(folder / "data", model_dir) as services, Client(services.ports) as client:
        world = World(client)
        await actors.fill(world, _EVERYTHING)
        report = SoakReport(world.divergences, client.tally, [], [], time.monotonic(), plan.seconds)
        async with asyncio.TaskGroup() as tasks:
            for actor in _cast(world, plan):
                tasks.create_task(actor)
            tasks.create_task(_watch_memory(world, services, report, plan))
            tasks.create_task(_restart(world, services, report, plan))
            await asyncio.sleep(plan.seconds)
            world.stop.set()
        await _reckon(world)
    _prove(folder / "data", report)
    return report


def _cast(world: World, plan: Plan) -> list[Any]:
    halves = [_USERS[: len(_USERS) // 2], _USERS[len(_USERS) // 2 :]]
    pause = plan.pause_s
    return [
        *(actors.upsert_and_delete(world, names, seed, 2 * pause) for seed, names in enumerate(_OF_WRITERS)),
        actors.import_streams(world, _IMPORTED, 10, 20 * pause),
        *(actors.act_as_users(world, names, _EVERYTHING[::3], 20 + i, pause) for i, names in enumerate(halves)),
        *(actors.recommend(world, _USERS, 30 + i, pause) for i in range(2)),
        actors.compare(world, _EVERYTHING, _USERS, 40, 2 * pause),
    ]


async def _watch_memory(world: World, services: Services, report: SoakReport, plan: Plan) -> None:
    while await world.pause(max(plan.seconds / 400, 0.25)):
        report.memory.append((time.monotonic(), services.memory_mib()))


async def _restart(world: World, services: Services, report: SoakReport, plan: Plan) -> None:
    for number in range(plan.restarts):
        if not await world.pause(plan.seconds / 2 / (plan.restarts + 1)):
            return
        name = NAMES[number % len(NAMES)]
        report.away_s.append((name, await services.restart(name, kill=number % 2 == 1)))


async def _reckon(world: World) -> None:
    """Nothing is written any more: every item and every user as the truth says."""
    truth, token = world.items.settled(), ""
    found: dict[str, int] = {}
    while True:
        request = retrieval.ListItemsRequest(catalog=CATALOG, page_size=500, page_token=token)
        page = await world.client.retrieval.ListItems(request, timeout=30)
        found |= {entry.id: int(entry.attributes["version"].number_value) for entry in page.items}
        token = page.next_page_token
        if not token:
            break
    wrong = {name for name in truth.keys() | found.keys() if truth.get(name) != found.get(name)}
    if wrong:
        world.diverged(f"{len(wrong)} items of {len(truth)} at the end, such as {sorted(wrong)[:3]}")
    for name, user in world.users.users.items():
        stored = await actors.stored_events(world.client, name)
        if stored != user.events:
            world.diverged(f"{name} has {len(stored or ())} events at the end and must have {len(user.events)}")


def _prove(data: Path, report: SoakReport) -> None:
    """Stores, indexes and statistics that the stopped services left agree."""
    checked = Report()
    check_retrieval(Locations(data), checked, repair=False)
    check_ranking(Locations(data), checked, _HALF_LIFE_S, repair=False)
    report.proved = checked.proved
    report.divergences.extend(f"{finding.where}: {finding.what}" for finding in checked.findings)
