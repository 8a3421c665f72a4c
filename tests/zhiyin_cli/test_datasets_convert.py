"""Public data sets as import files: every row kept, in the format that the import reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from zhiyin_cli.main import app
from zhiyin_offline.rows.row_messages import event_message, item_message, message_of
from zhiyin_offline.rows.row_source import RowSource


def _convert(dataset: str, source: Path, out_dir: Path) -> None:
    result = CliRunner().invoke(app, ["datasets", "convert", dataset, str(source), str(out_dir)])
    assert result.exit_code == 0, result.output


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _assert_importable(out_dir: Path) -> None:
    ids = {message_of(row, item_message).id for row in RowSource(str(out_dir / "items.jsonl"))}  # type: ignore[union-attr]
    events = [message_of(row, event_message) for row in RowSource(str(out_dir / "events.jsonl"))]
    assert all(event.item_id in ids for event in events)  # type: ignore[union-attr]
    assert len({event.event_id for event in events}) == len(events)  # type: ignore[union-attr]


def test_movielens(test_data: Path, tmp_path: Path) -> None:
    _convert("movielens", test_data / "movielens-small", tmp_path)
    items = _rows(tmp_path / "items.jsonl")
    events = _rows(tmp_path / "events.jsonl")
    assert (len(items), len(events)) == (9742, 100836)
    toy_story = next(item for item in items if item["title"] == "Toy Story (1995)")
    assert toy_story["categories"][0] == "Adventure"
    assert "pixar" in toy_story["text"]
    assert toy_story["attributes"]["year"] == 1995
    assert events == sorted(events, key=lambda event: event["time"])
    assert {event["type"] for event in events} == {"rating"}
    _assert_importable(tmp_path)


def test_amazon(test_data: Path, tmp_path: Path) -> None:
    _convert("amazon", test_data / "amazon-beauty", tmp_path)
    items = _rows(tmp_path / "items.jsonl")
    events = _rows(tmp_path / "events.jsonl")
    assert (len(items), len(events)) == (12101, 198502)
    assert len({event["user_id"] for event in events}) == 22363
    assert not any("&amp;" in item["title"] for item in items)
    first_user = [event["item_id"] for event in events if event["user_id"] == "1"]
    assert first_user == ["1", "2", "3", "4", "5"]
    _assert_importable(tmp_path)


def test_kuairec(test_data: Path, tmp_path: Path) -> None:
    _convert("kuairec", test_data / "kuairec-captions", tmp_path)
    items = _rows(tmp_path / "items.jsonl")
    assert len(items) == len({item["id"] for item in items}) == 10728
    assert all(item["title"] for item in items)
    assert not any(item["title"] == item["text"] for item in items)
    assert items[0]["categories"] == ["颜值", "颜值随拍"]
    _assert_importable(tmp_path)


def test_a_folder_without_the_data_set_is_said_clearly(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["datasets", "convert", "movielens", str(tmp_path), str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "neither tags.csv nor tags.csv.gz" in " ".join(result.output.split())
