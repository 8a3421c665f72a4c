"""The example catalogue is what the README says: bilingual, seven fields, consistent, and importable as it stands."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zhiyin_offline.rows.row_messages import EVENT_TYPES, event_message, item_message, message_of, user_message
from zhiyin_offline.rows.row_source import RowSource

_EXAMPLES = Path(__file__).parents[2] / "examples"
_CATALOGUE = _EXAMPLES / "catalogue"
_FIELDS = {"shopping", "social", "video", "news", "music", "games", "courses"}


def _rows(path: Path) -> list[dict[str, Any]]:
    return [row.fields for row in RowSource(str(path))]


def _items() -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in _rows(_CATALOGUE / "items")}


def test_every_row_becomes_a_message() -> None:
    for name, build in (("items", item_message), ("users.jsonl", user_message), ("events.jsonl", event_message)):
        for row in RowSource(str(_CATALOGUE / name)):
            message_of(row, build)


def test_the_items_are_many_bilingual_and_spread_over_the_fields() -> None:
    rows = _rows(_CATALOGUE / "items")
    assert len(rows) == len({row["id"] for row in rows}) >= 320
    by_field = Counter(row["categories"][0] for row in rows)
    assert set(by_field) == _FIELDS
    assert min(by_field.values()) >= 40
    languages = Counter(row["language"] for row in rows)
    assert set(languages) == {"zh", "en"}
    assert min(languages.values()) >= 0.45 * len(rows)
    for field in _FIELDS:
        assert {row["language"] for row in rows if row["categories"][0] == field} == {"zh", "en"}


def test_no_two_items_say_the_same() -> None:
    items = _items().values()
    assert len({item["title"] for item in items}) == len(items)
    assert len({item["text"] for item in items}) == len(items)
    assert all(len(item["text"]) >= 20 and len(item["categories"]) >= 2 for item in items)


def test_an_attribute_has_one_type() -> None:
    types: defaultdict[str, set[str]] = defaultdict(set)
    for item in _items().values():
        for name, value in item["attributes"].items():
            types[name].add("number" if type(value) in (int, float) else type(value).__name__)
    assert {name: kinds for name, kinds in types.items() if len(kinds) > 1} == {}
    assert {"price", "year", "duration_minutes", "brand", "artist", "platform", "difficulty", "tags"} <= set(types)


def test_items_came_into_the_world_in_the_last_two_years() -> None:
    for item in _items().values():
        created_at = datetime.fromisoformat(item["created_at"])
        assert datetime(2025, 1, 1, tzinfo=UTC) <= created_at < datetime(2026, 12, 1, tzinfo=UTC), item["id"]


def test_users_of_both_languages_have_histories_and_two_are_newcomers() -> None:
    users = {user["id"]: user for user in _rows(_CATALOGUE / "users.jsonl")}
    events = Counter(event["user_id"] for event in _rows(_CATALOGUE / "events.jsonl"))
    with_history = Counter(users[user]["attributes"]["language"] for user in events)
    assert set(with_history) == {"zh", "en"}
    assert min(with_history.values()) >= 10
    assert set(users) - set(events) == {"zh-newcomer", "en-newcomer"}
    assert min(events.values()) >= 8
    assert len({user["profile"] for user in users.values()}) == len(users)
    assert all(followed in users for user in users.values() for followed in user["follows"])


def test_events_refer_to_what_exists_in_the_order_of_their_times() -> None:
    items = _items()
    events = _rows(_CATALOGUE / "events.jsonl")
    times = [datetime.fromisoformat(event["time"]) for event in events]
    assert len(events) == len({event["event_id"] for event in events}) >= 780
    assert times == sorted(times)
    assert {event["type"] for event in events} <= set(EVENT_TYPES)
    assert len({event["type"] for event in events}) >= 12
    for event, time in zip(events, times, strict=True):
        if event["type"] == "search":
            assert event["text"]
            continue
        assert datetime.fromisoformat(items[event["item_id"]]["created_at"]) <= time, event


def test_paraphrases_name_items_of_the_catalogue() -> None:
    items = _items()
    rows = [json.loads(line) for line in (_EXAMPLES / "paraphrases.jsonl").read_text(encoding="utf-8").splitlines()]
    assert Counter(row["interest"] for row in rows) == {"film": 10, "music": 10, "travel": 10}
    assert len({row["text"] for row in rows}) == 30
    assert {row["expected_item_id"] for row in rows} == {
        "video-changjinhu",
        "music-jay-greatest-works",
        "post-lijiang-guide",
    }
    assert all(row["expected_item_id"] in items for row in rows)
