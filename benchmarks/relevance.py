"""How good lists are on public data: Zhiyin trained with its defaults, its single sources, and the baselines.

Each table is one `zhiyin evaluate` as a user would call it: both protocols, history excluded and included, hidden
items, users as new. Nothing is tuned to a data set.

Environment:
    ZHIYIN_TEST_DATA: a folder with `amazon-beauty` and `movielens-small`.
    ZHIYIN_BENCH_TABLES: which tables, separated by commas; default all.
    ZHIYIN_BENCH_SEEDS: seeds; default 3.
    ZHIYIN_BENCH_MAX_USERS: users that are judged, drawn evenly; default 0, all.
    ZHIYIN_BENCH_CACHE: where item vectors are kept between runs; default a temporary folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SOURCES = "history,transition,sequence,collaborative,factors,neighbours,community,popular"
_BASELINES = (
    "popularity,text,als,svd,ease,item-knn-cosine,item-knn-pearson,item-knn-jaccard,"
    "user-knn-cosine,user-knn-pearson,user-knn-jaccard"
)
_SHOWN = ("recall@10", "ndcg@10", "diversity@10", "category_diversity@10", "coverage@10", "novelty@10")


@dataclass(frozen=True)
class Table:
    """One evaluation."""

    dataset: str
    options: tuple[str, ...] = ()
    methods: str = f"zhiyin,zhiyin-relevance,zhiyin-mmr,zhiyin-dpp,zhiyin-quota,zhiyin-calibrated,{_BASELINES}"

    @property
    def name(self) -> str:
        """What the result calls it."""
        return " ".join([self.dataset, *(option.removeprefix("--") for option in self.options)])


_ALONE = "zhiyin,zhiyin-relevance," + ",".join(f"zhiyin-only-{source}" for source in _SOURCES.split(","))
_FEW = "zhiyin,popularity,text,ease,item-knn-cosine"
TABLES = (
    *(Table(dataset, (), f"{Table(dataset).methods},{_ALONE}") for dataset in ("movielens-small", "amazon-beauty")),
    *(Table(dataset, ("--include-history",)) for dataset in ("movielens-small", "amazon-beauty")),
    *(Table(dataset, ("--protocol", "time-split", "--frozen")) for dataset in ("movielens-small", "amazon-beauty")),
    Table("amazon-beauty", ("--hide-items", "0.1"), "zhiyin,zhiyin-relevance,text,ease,item-knn-cosine"),
    *(Table("movielens-small", ("--known-events", str(n)), _FEW) for n in (0, 1, 2, 3, 5)),
)


def run() -> dict[str, Any]:
    """Runs the tables; the ratios are NDCG@10 of Zhiyin to that of the best baseline."""
    asked = [name.strip() for name in os.environ.get("ZHIYIN_BENCH_TABLES", "").split(",") if name.strip()]
    tables = [table for table in TABLES if not asked or table.name in asked]
    figures: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for table in tables:
            report = _evaluated(table, Path(folder))
            figures[table.name] = _figures(report)
            ndcg = {name: of["ndcg@10"] for name, of in report["metrics"].items()}
            best = max((value for name, value in ndcg.items() if not name.startswith("zhiyin")), default=0.0)
            if best:
                ratios[table.name] = round(ndcg["zhiyin"] / best, 3)
            print(table.name, json.dumps(figures[table.name]["metrics"]), file=sys.stderr, flush=True)
    return {"ratios": ratios, "figures": figures}


def _evaluated(table: Table, work: Path) -> dict[str, Any]:
    data = Path(os.environ["ZHIYIN_TEST_DATA"]) / table.dataset
    converted, written = work / table.dataset, work / "report.json"
    zhiyin = [str(Path(sys.executable).with_name("zhiyin"))]
    if not converted.exists():
        subprocess.run([*zhiyin, "datasets", "convert", _FORMATS[table.dataset], str(data), str(converted)], check=True)
    cache = os.environ.get("ZHIYIN_BENCH_CACHE", str(work / "cache"))
    command = [*zhiyin, "evaluate", str(converted), "--methods", table.methods, "--json", str(written)]
    command += ["--seeds", os.environ.get("ZHIYIN_BENCH_SEEDS", "3"), "--cache-dir", cache]
    command += ["--max-users", os.environ.get("ZHIYIN_BENCH_MAX_USERS", "0"), *table.options]
    subprocess.run(command, check=True)
    report: dict[str, Any] = json.loads(written.read_text())
    return report


_FORMATS = {"amazon-beauty": "amazon", "movielens-small": "movielens"}


def _figures(report: dict[str, Any]) -> dict[str, Any]:
    """The foremost metrics with standard errors, and how Zhiyin does against each method."""
    against = report["verdicts"].get("zhiyin", {})
    metrics = {}
    for name, of in report["metrics"].items():
        errors = report["standard_errors"][name]
        shown = {key: _rounded(of.get(key)) for key in _SHOWN if of.get(key) is not None}
        shown["recall@10_error"], shown["ndcg@10_error"] = _rounded(errors["recall@10"]), _rounded(errors["ndcg@10"])
        if name in against:
            shown["zhiyin_is"] = against[name]["ndcg@10"]["verdict"]
        metrics[name] = shown
    by_items = {name: of["metrics"] for name, of in report["groups"].items() if name.startswith("items: ")}
    return {
        "cases": report["protocol"].get("cases"),
        "metrics": metrics,
        "groups": {name: {m: _rounded(of[m]["recall@10"]) for m in of} for name, of in by_items.items()},
        "seconds": report["seconds"],
    }


def _rounded(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value
