"""Typed attributes of items, users and contexts, between the wire and Python."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, MutableMapping
from datetime import datetime

from service_runtime.timestamps import set_moment, to_moment
from service_runtime.validation import Violations
from zhiyin.common.v1.item_pb2 import AttributeValue

AttributeScalar = str | float | bool | tuple[str, ...] | datetime

MAX_ATTRIBUTES = 64
MAX_WORD_BYTES = 1024
MAX_WORDS = 64
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def is_name(name: str) -> bool:
    """Whether an attribute can have this name."""
    return _NAME.fullmatch(name) is not None


def check(violations: Violations, field: str, attributes: Mapping[str, AttributeValue]) -> None:
    """Notes everything wrong with a map of attributes, under `field[NAME]`."""
    violations.check_count(field, len(attributes), 0, MAX_ATTRIBUTES)
    for name, value in attributes.items():
        path = f"{field}[{name}]"
        if not is_name(name):
            violations.add(path, "is no attribute name; use 1 to 64 of a-z, 0-9 and _, starting with a letter")
        check_value(violations, path, value)


def check_value(violations: Violations, path: str, value: AttributeValue) -> None:
    """Notes everything wrong with one attribute value."""
    kind = value.WhichOneof("kind")
    if kind is None:
        violations.add(path, "has no value; set exactly one of its fields")
    elif kind == "string_value":
        violations.check_text(path, value.string_value, MAX_WORD_BYTES)
    elif kind == "number_value" and not math.isfinite(value.number_value):
        violations.add(path, "is not a finite number")
    elif kind == "string_list_value":
        violations.check_count(path, len(value.string_list_value.values), 0, MAX_WORDS)
        for i, word in enumerate(value.string_list_value.values):
            violations.check_text(f"{path}.values[{i}]", word, MAX_WORD_BYTES)
    elif kind == "time_value":
        violations.check_timestamp(path, value.time_value)


def value_from_proto(value: AttributeValue) -> AttributeScalar:
    """One checked attribute value in Python."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return value.number_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "string_list_value":
        return tuple(dict.fromkeys(value.string_list_value.values))
    if kind == "time_value":
        return to_moment(value.time_value)
    raise ValueError("an attribute without a value; check() it first")


def from_proto(attributes: Mapping[str, AttributeValue]) -> dict[str, AttributeScalar]:
    """A checked map of attributes in Python, ordered by name."""
    return {name: value_from_proto(attributes[name]) for name in sorted(attributes)}


def value_to_proto(value: AttributeScalar) -> AttributeValue:
    """One attribute value for the wire."""
    message = AttributeValue()
    if isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, (int, float)):
        message.number_value = value
    elif isinstance(value, tuple):
        message.string_list_value.values.extend(value)
        message.string_list_value.SetInParent()
    else:
        set_moment(message.time_value, value)
    return message


def to_proto(attributes: Mapping[str, AttributeScalar], target: MutableMapping[str, AttributeValue]) -> None:
    """Fills a proto map field (which allows no assignment) with attributes."""
    for name, value in attributes.items():
        target[name].CopyFrom(value_to_proto(value))


def to_json(attributes: Mapping[str, AttributeScalar]) -> dict[str, list[object]]:
    """A JSON form that keeps types: name -> [type letter, value]. For stores."""
    out: dict[str, list[object]] = {}
    for name, value in attributes.items():
        if isinstance(value, bool):
            out[name] = ["b", value]
        elif isinstance(value, str):
            out[name] = ["s", value]
        elif isinstance(value, (int, float)):
            out[name] = ["n", value]
        elif isinstance(value, tuple):
            out[name] = ["l", list(value)]
        else:
            out[name] = ["t", value.isoformat()]
    return out


def from_json(stored: Mapping[str, list[object]]) -> dict[str, AttributeScalar]:
    """The attributes that `to_json` wrote."""
    out: dict[str, AttributeScalar] = {}
    for name, (kind, value) in stored.items():
        if kind == "l":
            assert isinstance(value, list)
            out[name] = tuple(str(word) for word in value)
        elif kind == "t":
            out[name] = datetime.fromisoformat(str(value))
        elif kind == "n":
            assert isinstance(value, (int, float))
            out[name] = float(value)
        elif kind == "b":
            out[name] = bool(value)
        else:
            out[name] = str(value)
    return out
