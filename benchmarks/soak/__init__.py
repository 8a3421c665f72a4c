"""A mixed load for a long time, with an oracle beside it: `python -m benchmarks run soak`.

Environment:
    ZHIYIN_SOAK_MINUTES: how long; default 30.
    ZHIYIN_BENCH_MODEL: a model directory, checkpoint folder or package; default the shipped one.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.soak.run import Plan, soak
from zhiyin_cli.model_source import DEFAULT_MODEL, ready_model


def run() -> dict[str, Any]:
    """Soaks a fresh stack; exits with code 1 when anything diverged."""
    minutes = float(os.environ.get("ZHIYIN_SOAK_MINUTES", "30"))
    with tempfile.TemporaryDirectory() as folder:
        model = ready_model(os.environ.get("ZHIYIN_BENCH_MODEL", DEFAULT_MODEL), Path(folder) / "models", print)
        report = asyncio.run(soak(Path(folder), model, Plan(minutes * 60)))
    for divergence in report.divergences:
        print(f"DIVERGED: {divergence}", file=sys.stderr)
    if report.divergences:
        raise SystemExit(1)
    return {"ratios": report.ratios(), "figures": report.figures()}
