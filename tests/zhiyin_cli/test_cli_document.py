"""docs/cli.md names every command and every option there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from zhiyin_cli.main import app

_DOCUMENT = (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8")
_OF_TYPER = {"--help", "--install-completion", "--show-completion"}


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, f"{path} {name}")


def test_every_command_and_option_is_documented() -> None:
    for path, command in _commands(get_command(app), "zhiyin"):
        if not getattr(command, "commands", {}):
            assert path in _DOCUMENT, f"{path} is not in docs/cli.md"
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        for option in options - _OF_TYPER:
            assert option in _DOCUMENT, f"{path} {option} is not in docs/cli.md"
