"""`zhiyin up` and `zhiyin demo` with the real services."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from zhiyin_cli.process_group import free_port

_ROOT = Path(__file__).parents[2]


def _zhiyin(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "zhiyin_cli", *arguments]


def _up(data_dir: Path, model_dir: Path) -> list[str]:
    ports = [word for name in ("encoder", "retrieval", "ranking") for word in (f"--{name}-port", str(free_port()))]
    metrics = [word for name in ("encoder", "retrieval", "ranking") for word in (f"--{name}-metrics-port", "0")]
    return _zhiyin("up", "--data-dir", str(data_dir), "--model", str(model_dir), *ports, *metrics)


def test_up_says_ready_once_and_leaves_nothing_behind(minilm_model_dir: Path, tmp_path: Path) -> None:
    with subprocess.Popen(_up(tmp_path, minilm_model_dir), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            children = psutil.Process(process.pid).children(recursive=True)
        finally:
            process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 0
    assert re.fullmatch(r"ready encoder=127\.0\.0\.1:\d+ retrieval=127\.0\.0\.1:\d+ ranking=127\.0\.0\.1:\d+\n", line)
    assert rest == ""
    assert len(children) >= 3
    assert not any(child.is_running() for child in children)
    assert {log.name for log in (tmp_path / "logs").iterdir()} == {"encoder.log", "retrieval.log", "ranking.log"}


def test_up_stops_everything_when_a_service_dies(minilm_model_dir: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        _up(tmp_path, minilm_model_dir), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("ready")
        children = psutil.Process(process.pid).children(recursive=True)
        next(child for child in children if "ranking_service" in child.cmdline()).kill()
        assert process.wait(60) == 1
        assert "ranking ended with code -9" in process.stderr.read()
    assert not any(child.is_running() for child in children)


def test_nothing_lives_on_when_up_is_killed(minilm_model_dir: Path, tmp_path: Path) -> None:
    with subprocess.Popen(_up(tmp_path, minilm_model_dir), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait(60)
        assert len(children) >= 3
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive
    for name in ("encoder", "retrieval", "ranking"):  # they were not killed: they drained and closed their stores
        assert '"event": "stopped"' in (tmp_path / "logs" / f"{name}.log").read_text()


@pytest.mark.timeout(300)
def test_the_demo_shows_both_languages_and_its_second_run_imports_nothing(tmp_path: Path) -> None:
    command = _zhiyin("demo", "--data-dir", str(tmp_path))
    first = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=240)
    assert first.returncode == 0, first.stdout + first.stderr
    for scene in ("Users with a history", "A newcomer", "One event changes the list", "One knob for diversity"):
        assert first.stdout.count(scene) == 2, "once in English, once in Chinese"
    assert "en-alice" in first.stdout
    assert "zh-lin" in first.stdout
    assert re.search(r"[1-9]\d* of 8 items are new", first.stdout)
    assert "347 accepted" in first.stderr
    figures = [int(figure) for figure in re.findall(r"diversity \S+: (\d+) different categories", first.stdout)]
    assert len(figures) >= 3
    assert figures[0] <= figures[2]

    second = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=120)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "the example catalogue is there from an earlier run" in second.stdout
    assert "accepted" not in second.stderr
    assert re.search(r"[1-9]\d* of 8 items are new", second.stdout)
