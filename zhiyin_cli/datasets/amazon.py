"""Amazon Beauty 5-core (2014).

Sequences.txt (a user and its items in order) and items.csv (item_id, asin, title, attributes).
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from zhiyin_cli.datasets.tables import csv_rows, open_text, write_rows

# The data set has an order but no times. Each user's purchases are put a day apart, and into one session, so that
# their order counts; a time split over users would be meaningless.
_FIRST_DAY = datetime(2014, 1, 1, tzinfo=UTC)
_UNKNOWN = "Unknown"


def convert(source: Path, out_dir: Path) -> tuple[int, int]:
    """Writes items.jsonl and events.jsonl and returns the counts of both.

    One item a product, one event a purchase, in each user's order.
    """
    items = write_rows(out_dir / "items.jsonl", _items(source))
    events = write_rows(out_dir / "events.jsonl", _events(source))
    return items, events


def _items(source: Path) -> Iterator[dict[str, Any]]:
    for row in csv_rows(source, "items.csv"):
        brand, *categories = [part.strip() for part in row["attributes"].split(" | ")]
        title = " ".join(html.unescape(row["title"]).split())
        known = [part for part in [brand, *categories] if part and part != _UNKNOWN]
        attributes = {"asin": row["asin"]} | ({"brand": brand} if brand and brand != _UNKNOWN else {})
        yield {
            "id": row["item_id"],
            "title": title,
            "text": ", ".join(known) or f"Beauty product {row['asin']}",
            "categories": categories,
            "attributes": attributes,
            "language": "en",
        }


def _events(source: Path) -> Iterator[dict[str, Any]]:
    with open_text(source, "sequences.txt") as stream:
        for line in stream:
            user, *items = line.split()
            for position, item in enumerate(items):
                yield {
                    "event_id": f"purchase-{user}-{position}",
                    "user_id": user,
                    "item_id": item,
                    "type": "purchase",
                    "time": (_FIRST_DAY + timedelta(days=position)).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "session_id": f"history-{user}",
                }
