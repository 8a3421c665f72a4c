"""Rows of import files as messages of the API."""

from __future__ import annotations

from typing import Any

import pytest

from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2
from zhiyin_offline.rows.row_errors import BadRow
from zhiyin_offline.rows.row_messages import event_message, item_message, message_of, user_message
from zhiyin_offline.rows.row_source import SourceRow


def _row(fields: dict[str, Any], line: int = 1) -> SourceRow:
    return SourceRow(line, "rows.jsonl", fields)


def test_an_item_with_everything() -> None:
    item = item_message(
        _row(
            {
                "id": 17,
                "title": "《长津湖》",
                "text": "电影",
                "categories": ["video", "film"],
                "attributes": {
                    "year": 2021,
                    "director": "陈凯歌",
                    "dubbed": False,
                    "tags": ["战争"],
                    "shown_at": {"time": "2026-01-02T03:04:05+08:00"},
                },
                "language": "zh",
                "created_at": "2026-10-01T06:00:00+08:00",
                "prior": 0.7,
                "available": False,
            }
        )
    )
    assert item.id == "17"
    assert item.attributes["year"].number_value == 2021
    assert item.attributes["dubbed"].WhichOneof("kind") == "bool_value"
    assert list(item.attributes["tags"].string_list_value.values) == ["战争"]
    assert item.attributes["shown_at"].time_value.ToJsonString() == "2026-01-01T19:04:05Z"
    assert item.created_at.ToJsonString() == "2026-09-30T22:00:00Z"
    assert item.HasField("available")
    assert not item.available


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"title": "x"}, "id: missing"),
        ({"id": "a"}, "title: an item needs a title or a text"),
        ({"id": "a", "titel": "x"}, "unknown field titel"),
        ({"id": "a", "title": 5}, "title: expected text"),
        ({"id": "a", "title": "x", "created_at": "yesterday"}, "created_at: not an RFC 3339 time"),
        ({"id": "a", "title": "x", "created_at": "2026-01-01T00:00:00"}, "created_at: not an RFC 3339 time"),
        ({"id": "a", "title": "x", "categories": "books"}, "categories: expected a list"),
        ({"id": "a", "title": "x", "attributes": {"size": {"w": 1}}}, "attributes.size"),
        ({"id": "a", "title": "x", "prior": "high"}, "prior: expected a finite number"),
        ({"id": "a", "title": "half a pair \ud83d"}, "lone surrogate"),
    ],
)
def test_items_that_cannot_be_used_say_why(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadRow) as fault:
        message_of(_row(fields), item_message)
    assert complaint in str(fault.value)


def test_an_event_without_id_gets_the_same_one_each_time_and_another_on_another_line() -> None:
    fields = {"user_id": "u", "item_id": "i", "type": "click"}
    assert event_message(_row(fields)).event_id == event_message(_row(dict(fields))).event_id
    assert event_message(_row(fields, 1)).event_id != event_message(_row(fields, 2)).event_id
    assert event_message(_row(fields | {"event_id": "mine"})).event_id == "mine"


def test_event_types_have_the_names_of_the_contract() -> None:
    event = event_message(_row({"user_id": 1, "type": "add_to_cart", "item_id": 2, "value": "3"}))
    assert event.type == ranking_pb2.EVENT_TYPE_ADD_TO_CART
    assert event.value == 3.0
    assert event_message(_row({"user_id": "u", "type": "search", "text": "云南"})).item_id == ""
    with pytest.raises(BadRow, match="type: expected one of"):
        event_message(_row({"user_id": "u", "type": "unspecified", "item_id": "i"}))
    with pytest.raises(BadRow, match="item_id: missing"):
        event_message(_row({"user_id": "u", "type": "click"}))


def test_a_user() -> None:
    user = user_message(_row({"id": "u", "profile": "喜欢电影", "attributes": {"age": 30}, "follows": ["v", "w"]}))
    assert (user.profile, list(user.follows)) == ("喜欢电影", ["v", "w"])


@pytest.mark.parametrize("fields", [{"attributes": {"x": 10**400}}, {"prior": 10**400}])
def test_a_number_beyond_all_floats_is_a_bad_row(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRow, match="too large"):
        message_of(_row({"id": "a", **fields}), item_message)


def test_an_event_brings_its_circumstances() -> None:
    fields = {"user_id": "u", "item_id": "i", "type": "click"}
    context = event_message(_row({**fields, "context": {"locale": "zh-CN", "device": "phone"}})).context
    assert (context.locale, context.device, context.place) == ("zh-CN", "phone", "")
    assert not event_message(_row({**fields, "context": {}})).HasField("context")
    assert not event_message(_row(fields)).HasField("context")
    for wrong in ("phone", {"devise": "phone"}, {"device": 5}):
        with pytest.raises(BadRow, match=r"context|device"):
            event_message(_row({**fields, "context": wrong}))
