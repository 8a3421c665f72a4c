"""What files of a data set may look like, and what is said of those that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zhiyin_offline.evaluation.dataset import read_dataset
from zhiyin_offline.rows.row_errors import ImportFailed

EVENT = {"user_id": "u", "item_id": "i", "type": "purchase", "time": "2026-01-01T00:00:00Z"}


def written(folder: Path, items: list[dict[str, Any]], events: list[dict[str, Any]]) -> Path:
    for name, rows in (("items", items), ("events", events)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_items_may_be_ids_and_nothing_else(tmp_path: Path) -> None:
    dataset = read_dataset(written(tmp_path, [{"id": "i"}, {"id": "j", "title": "words"}], [EVENT]))
    assert dataset.item_ids == ("i", "j")
    assert dataset.positive.tolist() == [True]


@pytest.mark.parametrize(
    ("items", "events", "complaint"),
    [
        ([{"id": "i"}], [EVENT, {**EVENT, "type": "rate"}], "events.jsonl, row 2: type: expected one of"),
        ([{"id": "i"}, {"title": "no id"}], [EVENT], "items.jsonl, row 2: id: missing"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(
    tmp_path: Path, items: list[dict[str, Any]], events: list[dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(ImportFailed, match=complaint):
        read_dataset(written(tmp_path, items, events))
