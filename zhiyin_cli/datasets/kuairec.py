"""KuaiRec captions: the texts of Chinese short videos (kuairec_caption_category.csv).

Items only: the data set at hand has no interactions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zhiyin_cli.datasets.tables import csv_rows, write_rows

_NONE = "UNKNOWN"
_LEVELS = ("first_level_category_name", "second_level_category_name", "third_level_category_name")
_TITLE_CHARACTERS = 60
_MOST_TAGS = 64


def convert(source: Path, out_dir: Path) -> tuple[int, int]:
    """Writes items.jsonl and an empty events.jsonl and returns the counts of both."""
    return write_rows(out_dir / "items.jsonl", _items(source)), write_rows(out_dir / "events.jsonl", [])


def _items(source: Path) -> Iterator[dict[str, Any]]:
    for row in csv_rows(source, "kuairec_caption_category.csv"):
        caption = " ".join(row["caption"].split())
        cover = "" if row["manual_cover_text"] == _NONE else " ".join(row["manual_cover_text"].split())
        categories = [row[level] for level in _LEVELS if row[level] and row[level] != _NONE]
        tags = [tag.strip() for tag in row["topic_tag"].strip("[]").split(",") if tag.strip()]
        # A tenth of the videos has neither caption nor cover text: their categories are all there is to say.
        title = cover or caption[:_TITLE_CHARACTERS] or " ".join(categories) or f"短视频 {row['video_id']}"
        yield {
            "id": row["video_id"],
            "title": title,
            "text": "" if caption == title else caption,
            "categories": categories,
            "attributes": {"tags": tags[:_MOST_TAGS]} if tags else {},
            "language": "zh",
        }
