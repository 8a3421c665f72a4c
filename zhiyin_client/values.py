"""Plain Python values as the contract's typed ones."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from zhiyin.common.v1 import item_pb2
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking

AttributeLike = str | bool | float | int | datetime.datetime | Sequence[str]


def attributes(values: Mapping[str, AttributeLike]) -> dict[str, item_pb2.AttributeValue]:
    """Typed attributes of an item, a user or a profile: `Item(id="1", attributes=attributes({"year": 1994}))`.

    Words, numbers, booleans, moments (with a time zone) and lists of words. Raises TypeError or ValueError for others.
    """
    return {name: attribute(value) for name, value in values.items()}


def attribute(value: AttributeLike) -> item_pb2.AttributeValue:
    """One typed attribute."""
    match value:
        case bool():
            return item_pb2.AttributeValue(bool_value=value)
        case int() | float():
            return item_pb2.AttributeValue(number_value=value)
        case str():
            return item_pb2.AttributeValue(string_value=value)
        case datetime.datetime():
            return item_pb2.AttributeValue(time_value=timestamp(value))
        case [*words] if all(isinstance(word, str) for word in words):
            return item_pb2.AttributeValue(string_list_value=item_pb2.StringList(values=words))
    raise TypeError(f"no attribute has a value of type {type(value).__name__}")


def timestamp(moment: datetime.datetime) -> Timestamp:
    """A moment. Raises ValueError for one without a time zone: nobody would know which moment it is."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    result = Timestamp()
    result.FromDatetime(moment)
    return result


def mask(paths: Iterable[str] | None) -> FieldMask | None:
    """A field mask; None stands for none, which means another thing than an empty one."""
    return None if paths is None else FieldMask(paths=paths)


def item_mask(paths: Iterable[str] | None) -> FieldMask | None:
    """A mask for reading items: whatever else is asked for, an item says which one it is."""
    return None if paths is None else FieldMask(paths=sorted({"id", *paths}))


def with_ids(events: Iterable[ranking.Event]) -> list[ranking.Event]:
    """The events, each with an id: an event without one would count twice when it is sent twice.

    The caller's own messages are left as they are.
    """
    return [with_id(event) for event in events]


def with_id(event: ranking.Event) -> ranking.Event:
    """The event, with an id."""
    if event.event_id:
        return event
    named = ranking.Event()
    named.CopyFrom(event)
    named.event_id = uuid.uuid4().hex
    return named
