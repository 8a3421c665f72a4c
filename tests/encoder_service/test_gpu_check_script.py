"""`scripts/gpu_check`, as far as a machine without a GPU can run it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check"


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has an NVIDIA driver")
def test_without_a_gpu_it_says_so_and_fails() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "no GPU" in done.stderr


@pytest.mark.long
def test_every_step_but_the_gpu_s_runs_on_the_cpu(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    flags = ["--provider", "cpu", "--precision", "fp32", "--stream-batches", "1", "--json", str(figures)]
    done = subprocess.run([sys.executable, str(SCRIPT), *flags], capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    result = json.loads(figures.read_text())
    assert result["served_by"] == "CPUExecutionProvider"
    assert result["parity_over_the_service"]["max_abs_difference"] < 2e-5
    assert all(rate > 0 for rate in result["bare_runtime_tokens_per_s"].values())
