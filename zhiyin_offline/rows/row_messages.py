"""Turns rows of import files into the messages of the API.

Fields that no message has are refused, not dropped: a misspelt `titel` would otherwise be lost without a word.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from zhiyin.common.v1 import item_pb2
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2
from zhiyin_offline.rows.attribute_values import attribute_value, timestamp
from zhiyin_offline.rows.row_errors import BadRow
from zhiyin_offline.rows.row_source import SourceRow

_EVENT_PREFIX = "EVENT_TYPE_"
Message = item_pb2.Item | ranking_pb2.Event | ranking_pb2.User
M = TypeVar("M", bound=Message)
EVENT_TYPES: dict[str, ranking_pb2.EventType.ValueType] = {
    name.removeprefix(_EVENT_PREFIX).lower(): ranking_pb2.EventType.Value(name)
    for name in ranking_pb2.EventType.keys()  # noqa: SIM118 - an enum wrapper, not a dictionary
    if ranking_pb2.EventType.Value(name)
}


def message_of(row: SourceRow, build: Callable[[SourceRow], M]) -> M:
    """Builds the message of a row that could be read. Raises BadRow with whatever is wrong with the row."""
    if row.fault:
        raise BadRow(row.fault)
    try:
        return build(row)
    except UnicodeEncodeError as exc:
        raise BadRow("a text holds half a character pair (a lone surrogate)") from exc
    except OverflowError as exc:
        raise BadRow("a number is too large") from exc


def item_message(row: SourceRow, *, wordless: bool = False) -> item_pb2.Item:
    """An item; `wordless`: one without title and text will do, which no service takes. Raises BadRow."""
    fields = _Fields(row.fields)
    item = item_pb2.Item(
        id=fields.identifier("id"),
        title=fields.text("title"),
        text=fields.text("text"),
        categories=fields.words("categories"),
        attributes=fields.attributes(),
        language=fields.text("language"),
    )
    for name in ("created_at", "available_from", "available_until"):
        if (value := fields.take(name)) is not None:
            getattr(item, name).CopyFrom(timestamp(name, value))
    if (available := fields.flag("available")) is not None:
        item.available = available
    if (prior := fields.number("prior")) is not None:
        item.prior = prior
    fields.finish()
    if not wordless and not item.title and not item.text:
        raise BadRow("title: an item needs a title or a text")
    return item


def event_message(row: SourceRow) -> ranking_pb2.Event:
    """An event.

    One without an id is given one made from its content and place, so that importing the file again counts nothing
    twice.
    """
    fields = _Fields(row.fields)
    kind = fields.text("type").lower()
    if kind not in EVENT_TYPES:
        raise BadRow(f"type: expected one of {', '.join(EVENT_TYPES)}, got {kind!r}")
    event = ranking_pb2.Event(
        event_id=fields.identifier("event_id", required=False) or derived_event_id(row),
        user_id=fields.identifier("user_id"),
        type=EVENT_TYPES[kind],
        item_id=fields.identifier("item_id", required=kind != "search"),
        session_id=fields.identifier("session_id", required=False),
        text=fields.text("text"),
        attribution_token=fields.text("attribution_token"),
    )
    if (value := fields.number("value")) is not None:
        event.value = value
    if (time := fields.take("time")) is not None:
        event.time.CopyFrom(timestamp("time", time))
    for name, text in fields.texts("context", ("locale", "device", "place")).items():
        setattr(event.context, name, text)
    fields.finish()
    return event


def derived_event_id(row: SourceRow) -> str:
    """A digest of the row and its place (name of the file and line).

    Equal rows on two lines of a file are two events, the same line read twice is one.
    """
    content = json.dumps(row.fields, sort_keys=True, ensure_ascii=False, default=str)
    return "import-" + hashlib.sha256(f"{row.file.partition('.')[0]}:{row.line}:{content}".encode()).hexdigest()[:32]


def user_message(row: SourceRow) -> ranking_pb2.User:
    """A user. Raises BadRow."""
    fields = _Fields(row.fields)
    user = ranking_pb2.User(
        id=fields.identifier("id"),
        profile=fields.text("profile"),
        attributes=fields.attributes(),
        follows=fields.words("follows"),
    )
    fields.finish()
    return user


class _Fields:
    """The fields of a row that have not been used yet, each read with the type it must have."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._left = dict(fields)

    def take(self, name: str) -> object:
        return self._left.pop(name, None)

    def text(self, name: str) -> str:
        value = self.take(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise BadRow(f"{name}: expected text, got {value!r}")
        return value

    def identifier(self, name: str, *, required: bool = True) -> str:
        value = self.take(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # numbered ids are common, and 17 and "17" are the same id
        if value is None and not required:
            return ""
        if not isinstance(value, str) or (required and not value):
            raise BadRow(
                f"{name}: missing" if value in (None, "") else f"{name}: expected text or a whole number, got {value!r}"
            )
        return value

    def words(self, name: str) -> list[str]:
        value = self.take(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise BadRow(f"{name}: expected a list of texts, got {value!r}")
        return value

    def number(self, name: str) -> float | None:
        value = self.take(name)
        try:
            number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
        except ValueError:
            number = math.nan
        if value is not None and (number is None or not math.isfinite(number)):
            raise BadRow(f"{name}: expected a finite number, got {value!r}")
        return number

    def flag(self, name: str) -> bool | None:
        value = self.take(name)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if value is not None and not isinstance(value, bool):
            raise BadRow(f"{name}: expected true or false, got {value!r}")
        return value

    def attributes(self) -> dict[str, item_pb2.AttributeValue]:
        value = self.take("attributes")
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise BadRow(f"attributes: expected an object, got {value!r}")
        return {name: attribute_value(f"attributes.{name}", each) for name, each in value.items()}

    def texts(self, name: str, known: tuple[str, ...]) -> dict[str, str]:
        """An object of texts."""
        value = self.take(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not set(value) <= set(known):
            raise BadRow(f"{name}: expected an object with some of {', '.join(known)}, got {value!r}")
        inside = _Fields(value)
        return {key: text for key in known if (text := inside.text(key))}

    def finish(self) -> None:
        if unknown := sorted(self._left):
            raise BadRow(
                f"unknown field {', '.join(unknown)}; what is not part of the format belongs under `attributes`"
            )
