"""MovieLens (GroupLens, ml-latest-small layout): movies.csv, ratings.csv, tags.csv."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zhiyin_cli.datasets.tables import csv_rows, write_rows

_YEAR = re.compile(r"\((\d{4})(?:[-–]\d{0,4})?\)\s*$")
_NO_GENRES = "(no genres listed)"
_MOST_TAGS = 40


def convert(source: Path, out_dir: Path) -> tuple[int, int]:
    """Writes items.jsonl and events.jsonl and returns the counts of both.

    One item a movie, one event a rating, in the order of their times.
    """
    items = write_rows(out_dir / "items.jsonl", _items(source))
    events = write_rows(out_dir / "events.jsonl", _events(source))
    return items, events


def _items(source: Path) -> Iterator[dict[str, Any]]:
    tags: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in csv_rows(source, "tags.csv"):
        tags[row["movieId"]][row["tag"].strip()] += 1
    for row in csv_rows(source, "movies.csv"):
        genres = [] if row["genres"] == _NO_GENRES else row["genres"].split("|")
        words = [tag for tag, _ in tags[row["movieId"]].most_common(_MOST_TAGS) if tag]
        sentences = [f"{', '.join(genres)}." if genres else "", f"{', '.join(words)}." if words else ""]
        item: dict[str, Any] = {
            "id": row["movieId"],
            "title": row["title"].strip(),
            "text": " ".join(sentence for sentence in sentences if sentence),
            "categories": genres,
            "attributes": {"tags": words} if words else {},
            "language": "en",
        }
        if match := _YEAR.search(row["title"]):
            item["attributes"]["year"] = int(match[1])
            item["created_at"] = f"{match[1]}-01-01T00:00:00Z"
        yield item


def _events(source: Path) -> Iterator[dict[str, Any]]:
    for row in sorted(csv_rows(source, "ratings.csv"), key=lambda row: int(row["timestamp"])):
        yield {
            "event_id": f"rating-{row['userId']}-{row['movieId']}",
            "user_id": row["userId"],
            "item_id": row["movieId"],
            "type": "rating",
            "value": float(row["rating"]),
            "time": datetime.fromtimestamp(int(row["timestamp"]), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
