"""Conditions on items, as a small tree. Pure data; `filter_index` evaluates it over bitmaps, `conversions` reads it.

A field is `id`, `categories`, `language`, `created_at` or `attributes.NAME`. A field that an item lacks matches no
condition (and so matches the negation of it). A name that no item has matches nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from service_runtime.errors import Violation

FilterValue = str | float | bool

MAX_CONDITIONS = 64
MAX_DEPTH = 8
MAX_VALUES = 1024

BUILT_IN_KINDS = {"id": "string", "categories": "string list", "language": "string", "created_at": "time"}


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part matches; no parts: everything matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part matches; no parts: nothing does."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not match."""

    part: Filter


@dataclass(frozen=True, slots=True)
class FieldIn:
    """The field, or any element of a list field, is one of the values. `path` is where the request says so."""

    path: str
    field: str
    values: tuple[FilterValue, ...]


@dataclass(frozen=True, slots=True)
class NumberRange:
    """The number lies in [low, high]; None: open."""

    path: str
    field: str
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The moment lies in [start, end); None: open."""

    path: str
    field: str
    start: datetime | None
    end: datetime | None


@dataclass(frozen=True, slots=True)
class FieldExists:
    """The field has a value."""

    path: str
    field: str


Filter = AllOf | AnyOf | Not | FieldIn | NumberRange | TimeRange | FieldExists
EVERYTHING = AllOf(())


def type_faults(condition: Filter, attribute_kinds: Mapping[str, str]) -> Iterator[Violation]:
    """Conditions that do not fit the type of their field.

    Args:
        condition: The tree.
        attribute_kinds: The types of the catalogue's attributes by name (without `attributes.`).
    """
    match condition:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from type_faults(part, attribute_kinds)
        case Not(part):
            yield from type_faults(part, attribute_kinds)
        case FieldIn(path, field, values):
            kind = field_kind(field, attribute_kinds)
            wanted = {"string list": "string"}.get(kind or "", kind)
            if kind == "time":
                yield Violation(path, f"{field} is a time; use time_range")
            elif wanted is not None:
                given = {_value_kind(value) for value in values}
                if given != {wanted}:
                    yield Violation(path, f"{field} holds values of type {kind}, not {' or '.join(sorted(given))}")
        case NumberRange(path, field):
            if field_kind(field, attribute_kinds) not in (None, "number"):
                yield Violation(path, f"{field} is a {field_kind(field, attribute_kinds)}, not a number")
        case TimeRange(path, field):
            if field_kind(field, attribute_kinds) not in (None, "time"):
                yield Violation(path, f"{field} is a {field_kind(field, attribute_kinds)}, not a time")
        case FieldExists():
            pass


def field_kind(field: str, attribute_kinds: Mapping[str, str]) -> str | None:
    """The type of a field; None: no item has it."""
    return BUILT_IN_KINDS.get(field) or attribute_kinds.get(field.removeprefix("attributes."))


def _value_kind(value: FilterValue) -> str:
    if isinstance(value, bool):
        return "bool"
    return "string" if isinstance(value, str) else "number"
