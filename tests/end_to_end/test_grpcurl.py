"""grpcurl over reflection, and the Python example: the whole path without and with stubs."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.stack import Stack

_CLIENTS = Path(__file__).parents[2] / "examples/clients"
_GRPCURL = Path(sysconfig.get_path("scripts")) / "grpcurl"


def test_grpcurl_walks_the_whole_path_without_a_proto_file(zhiyin_stack: Stack, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(_CLIENTS / "grpcurl/quickstart.sh")],
        cwd=tmp_path,
        env={**zhiyin_stack.environment(), "GRPCURL": str(_GRPCURL)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts = dict(part.split("\n", 1) for part in done.stdout.split("== ")[1:])
    assert "zhiyin.ranking.v1.RankingService" in parts["what the server offers"]
    assert len(json.loads(parts["upsert"])["results"]) == 3
    assert json.loads(parts["event"])["recorded_count"] == 1
    first = json.loads(parts["recommend"])["items"][0]
    assert first["item"]["title"] == "Arrival"
    assert first["reason"]["item_ids"] == ["interstellar"]
    refused = next(text for title, text in parts.items() if title.startswith("a request that is wrong"))
    assert "Code: InvalidArgument" in refused
    assert '"field":"catalog"' in refused
    assert '"field":"page_size"' in refused


def test_the_python_example_walks_the_whole_path(zhiyin_stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, str(_CLIENTS / "python/quickstart.py")],
        env=zhiyin_stack.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "recorded 1 event" in done.stdout
    assert "1. Arrival" in done.stdout
    assert "Because you finished “Interstellar”" in done.stdout
    assert "catalog: is empty" in done.stdout
    assert "page_size: is 1000" in done.stdout
