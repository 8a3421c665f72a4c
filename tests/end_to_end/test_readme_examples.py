"""The Python of the README runs as it stands; the commands of the README exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from benchmarks.stack import Stack

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_python_example_prints_a_list_that_knows_what_was_liked(zhiyin_stack: Stack) -> None:
    (code,) = blocks("python")
    code = code.replace("127.0.0.1:50052", zhiyin_stack.retrieval_address)
    code = code.replace("127.0.0.1:50053", zhiyin_stack.ranking_address)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines
    titles = "\n".join(lines)
    assert titles.index("Astronomy") < titles.index("Sourdough"), done.stdout


def test_the_commands_of_the_readme_exist() -> None:
    for block in blocks(""):
        for command in re.findall(r"^\.venv/bin/zhiyin (.*)$", block, re.MULTILINE):
            words = [word for word in command.split() if not word.startswith("-")]
            group = words[:2] if words[0] in {"items", "users", "events", "model", "datasets"} else words[:1]
            done = subprocess.run(
                [sys.executable, "-m", "zhiyin_cli", *group, "--help"], capture_output=True, text=True
            )
            assert done.returncode == 0, command
            for option in re.findall(r"(--[a-z-]+)", command):
                assert option in done.stdout, command
