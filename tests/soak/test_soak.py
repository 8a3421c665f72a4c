"""Mixed load with an oracle: nothing diverges; in the long form memory stays flat and latency does not grow either."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.soak.run import Plan, soak
from zhiyin_cli.model_source import DEFAULT_MODEL, ready_model

LONG_MINUTES = 30


async def test_some_seconds_of_everything_diverge_nowhere(minilm_model_dir: Path, tmp_path: Path) -> None:
    report = await soak(tmp_path, minilm_model_dir, Plan(12.0, restarts=3, pause_s=0.1))
    assert report.divergences == []
    assert len(report.away_s) == 3
    for call in ("UpsertItems", "DeleteItems", "ImportItems", "RecordEvents", "Recommend", "GetItems", "Search"):
        assert report.tally.calls[call] >= 3, f"{call} was hardly tried: {report.tally.calls}"
    assert any("pairs of user and item as a recount" in line for line in report.proved)


@pytest.mark.long
@pytest.mark.timeout(60 * LONG_MINUTES + 600)
async def test_half_an_hour_of_everything_diverges_nowhere_and_grows_nowhere(tmp_path: Path) -> None:
    minutes = float(os.environ.get("ZHIYIN_SOAK_MINUTES", LONG_MINUTES))
    report = await soak(tmp_path, ready_model(DEFAULT_MODEL, tmp_path / "models", print), Plan(minutes * 60))
    print(json.dumps({"ratios": report.ratios(), "figures": report.figures()}, indent=1, ensure_ascii=False))
    assert report.divergences == []
    ratios = report.ratios()
    assert all(ratio < 1.1 for name, ratio in ratios.items() if name.startswith("memory")), ratios
    assert all(ratio < 1.5 for name, ratio in ratios.items() if name.startswith("p50")), ratios
