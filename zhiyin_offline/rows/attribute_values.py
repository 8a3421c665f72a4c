"""Typed attributes as they stand in import files.

JSON says most types by itself: a string, a number, `true`, a list of strings. A moment has no JSON type, so it is
written as `{"time": "2026-11-24T08:00:00Z"}`. A CSV cell says nothing about its type: a column is named
`attributes.NAME` and the cell is read as what it looks like, or `attributes.NAME:TYPE` with TYPE one of string,
number, bool, list, time, which is safer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from zhiyin.common.v1 import item_pb2
from zhiyin_offline.rows.row_errors import BadRow

LIST_SEPARATOR = "|"
_CELL_TYPES = ("string", "number", "bool", "list", "time")


def timestamp(field: str, value: object) -> Timestamp:
    """Reads an RFC 3339 time with its offset, or a datetime from a Parquet file. Raises BadRow naming the field."""
    result = Timestamp()
    if isinstance(value, datetime):
        result.FromDatetime(value if value.tzinfo else value.replace(tzinfo=UTC))
        return result
    if not isinstance(value, str):
        raise BadRow(f"{field}: expected an RFC 3339 time such as 2026-11-24T08:00:00Z, got {value!r}")
    try:
        result.FromJsonString(value)
    except ValueError as exc:
        raise BadRow(f"{field}: not an RFC 3339 time with an offset: {value!r}") from exc
    return result


def attribute_value(field: str, value: object) -> item_pb2.AttributeValue:
    """Turns one JSON value into a typed attribute. Raises BadRow naming the field."""
    if isinstance(value, bool):
        return item_pb2.AttributeValue(bool_value=value)
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise BadRow(f"{field}: not a finite number")
        return item_pb2.AttributeValue(number_value=float(value))
    if isinstance(value, str):
        return item_pb2.AttributeValue(string_value=value)
    if isinstance(value, datetime):
        return item_pb2.AttributeValue(time_value=timestamp(field, value))
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return item_pb2.AttributeValue(string_list_value=item_pb2.StringList(values=value))
    if isinstance(value, Mapping) and set(value) == {"time"}:
        return item_pb2.AttributeValue(time_value=timestamp(field, value["time"]))
    raise BadRow(f'{field}: expected a string, number, boolean, list of strings or {{"time": ...}}, got {value!r}')


def attributes_from_cells(cells: Mapping[str, str]) -> dict[str, Any]:
    """Turns the cells of `NAME` or `NAME:TYPE` columns into the JSON form of attributes; empty cells are absent."""
    return {name.partition(":")[0]: _cell(name, cell) for name, cell in cells.items() if cell != ""}


def _cell(name: str, cell: str) -> object:
    attribute, _, kind = name.partition(":")
    field = f"attributes.{attribute}"
    if kind and kind not in _CELL_TYPES:
        raise BadRow(f"{field}: unknown column type {kind!r}; known are {', '.join(_CELL_TYPES)}")
    if kind == "string":
        return cell
    if kind == "list" or (not kind and LIST_SEPARATOR in cell):
        return [word for word in cell.split(LIST_SEPARATOR) if word]
    if kind == "time":
        return {"time": cell}
    if cell.lower() in ("true", "false") and kind in ("", "bool"):
        return cell.lower() == "true"
    if kind == "bool":
        raise BadRow(f"{field}: expected true or false, got {cell!r}")
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    if kind == "number":
        raise BadRow(f"{field}: expected a finite number, got {cell!r}")
    return cell
