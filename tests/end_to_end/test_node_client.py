"""The Node example runs the whole path over messages loaded from protos/."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.stack import Stack

_ROOT = Path(__file__).parents[2]
_EXAMPLE = _ROOT / "examples/clients/node"
_INSTALLED = _ROOT / ".cache/node-client"


@pytest.fixture(scope="module")
def node_client() -> Path:
    """The example with its packages, installed once for each state of the lock file."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("install Node 20 and npm to run the Node client")
    lock = hashlib.sha256((_EXAMPLE / "package-lock.json").read_bytes()).hexdigest()
    marker = _INSTALLED / "installed"
    if not marker.is_file() or marker.read_text() != lock:
        shutil.rmtree(_INSTALLED, ignore_errors=True)
        _INSTALLED.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_EXAMPLE / name, _INSTALLED / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=_INSTALLED, check=True, timeout=150)
        marker.write_text(lock)
    for source in [*_EXAMPLE.glob("*.mjs"), *_EXAMPLE.glob("protos/*.proto")]:
        target = _INSTALLED / source.relative_to(_EXAMPLE)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(source, target)
    return _INSTALLED


def test_node_walks_the_whole_path(node_client: Path, zhiyin_stack: Stack) -> None:
    done = subprocess.run(
        ["node", "quickstart.mjs"],
        cwd=node_client,
        env={**zhiyin_stack.environment(), "ZHIYIN_PROTOS": str(_ROOT / "protos")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert "upserted 5 items" in said
    assert "recorded 1 event" in said
    first_page = said.partition("first page:")[2].partition("next page:")[0]
    assert "Arrival" in first_page
    assert "Because you finished “Interstellar”" in first_page
    assert "refused: INVALID_ARGUMENT INVALID_REQUEST" in said
    assert "items[0].id:" in said
    assert "items[1].id:" in said
    assert "too late: DEADLINE_EXCEEDED" in said
