"""The Python of docs/python_client.md runs as it stands, from top to bottom, against real services."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.zhiyin_client.conftest import Services
from zhiyin_client import Client, errors

PAGE = (Path(__file__).parents[2] / "docs" / "python_client.md").read_text()


def test_the_page_runs(services: Services, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(re.findall(r"^```\w+$", PAGE, re.MULTILINE))
    code = "\n".join(blocks)
    for port, address in (
        ("50051", services.encoder.address),
        ("50052", services.retrieval.address),
        ("50053", services.ranking.address),
    ):
        code = code.replace(f"127.0.0.1:{port}", address)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert re.search(r"^1 \S.* \S", said, re.MULTILINE), said
    assert re.search(r"^\(2, \d+\) float32$", said, re.MULTILINE), said
    assert re.search(r"^\['a', 'b', 'c'\]$|^\['a', 'c', 'b'\]$", said, re.MULTILINE), said
    assert re.search(r"^page_size \S", said, re.MULTILINE), said
    assert re.search(r"^diversity \S", said, re.MULTILINE), said
    assert re.search(r"^user nobody$", said, re.MULTILINE), said
    assert "1000 accepted, 0 rejected" in said
    with Client(services.targets, catalog="python-client") as client:
        assert sum(1 for _ in client.list_items()) == 1003


def test_the_page_names_every_error() -> None:
    leaves = {cls.__name__ for cls in errors.ZhiyinError.__subclasses__()}
    assert leaves <= set(re.findall(r"`(\w+)`", PAGE))
