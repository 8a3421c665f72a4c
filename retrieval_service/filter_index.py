"""Bitmaps over item numbers that answer filters without touching an item.

Words, booleans and list elements have a bitmap a value; numbers and times a column indexed by item number, so a range
is two vectorised comparisons. Everything here is derived from the items and rebuilt from the store at start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

import numpy as np
from pyroaring import BitMap

from retrieval_service.filters import (
    AllOf,
    AnyOf,
    FieldExists,
    FieldIn,
    Filter,
    FilterValue,
    Not,
    NumberRange,
    TimeRange,
)
from retrieval_service.item import Item
from retrieval_service.number_column import NumberColumn
from retrieval_service.prior_order import PriorOrder

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> float:
    """Microseconds since 1970; exact in a float for 285 years around it."""
    delta = moment - _EPOCH
    return float((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds)


class FilterIndex:
    """Answers filters for one catalogue. Not safe for threads; its owner holds a lock."""

    def __init__(self) -> None:
        self.all = BitMap()
        self._words: dict[str, dict[FilterValue, BitMap]] = {}
        self._columns: dict[str, NumberColumn] = {}
        self._priors = PriorOrder()
        self._hidden = BitMap()
        self._from, self._until = NumberColumn(), NumberColumn()

    def add(self, number: int, item: Item) -> None:
        """Takes an item in."""
        self.all.add(number)
        self._priors.add(number, item.prior)
        for field, value in _terms(item):
            if isinstance(value, float):
                self._columns.setdefault(field, NumberColumn()).put(number, value)
            else:
                self._words.setdefault(field, {}).setdefault(value, BitMap()).add(number)
        if item.available is False:
            self._hidden.add(number)
        if item.available_from is not None:
            self._from.put(number, microseconds(item.available_from))
        if item.available_until is not None:
            self._until.put(number, microseconds(item.available_until))

    def remove(self, number: int, item: Item) -> None:
        """Forgets an item; `item` is what was added."""
        self.all.discard(number)
        self._priors.remove(number, item.prior)
        for field, value in _terms(item):
            if isinstance(value, float):
                self._columns[field].put(number, None)
            else:
                bitmaps = self._words[field]
                bitmaps[value].discard(number)
                if not bitmaps[value]:
                    del bitmaps[value]
        self._hidden.discard(number)
        self._from.put(number, None)
        self._until.put(number, None)

    def visible(self, now: datetime) -> BitMap:
        """Items that are available at a moment. Not to be changed."""
        if not self._hidden and not self._from.count and not self._until.count:
            return self.all
        moment = microseconds(now)
        seen = self.all - self._hidden
        if self._from.count:
            seen -= self._from.between(np.nextafter(moment, np.inf), np.inf)
        if self._until.count:
            seen -= self._until.between(-np.inf, moment)
        return seen

    def best(self, found: BitMap, count: int) -> list[int]:
        """The items of best prior among some; see PriorOrder.best."""
        return self._priors.best(found, count)

    def matching(self, condition: Filter, numbers: Mapping[str, int], among: BitMap | None = None) -> BitMap:
        """Items that match. Not to be changed.

        Args:
            condition: Fits the types of its fields (see `filters.type_faults`).
            numbers: Item numbers by id.
            among: Only these items are looked at, at a cost that grows with their number; None: all.
        """
        everything = self.all if among is None else among
        match condition:
            case AllOf(parts):
                found = everything
                for part in parts:
                    found = found & self.matching(part, numbers, among)
                return found
            case AnyOf(parts):
                return BitMap.union(BitMap(), *(self.matching(part, numbers, among) for part in parts))
            case Not(part):
                return everything - self.matching(part, numbers, among)
            case FieldIn(_, "id", values):
                return everything & BitMap([numbers[v] for v in values if isinstance(v, str) and v in numbers])
            case FieldIn(_, field, values) if field in self._columns:
                return self._columns[field].one_of([float(v) for v in values], among)
            case FieldIn(_, field, values):
                bitmaps = self._words.get(field, {})
                return _united((bitmaps[value] for value in values if value in bitmaps), among)
            case NumberRange(_, field, low, high):
                column = self._columns.get(field)
                low, high = -np.inf if low is None else low, np.inf if high is None else high
                return BitMap() if column is None else column.between(low, high, among)
            case TimeRange(_, field, start, end):
                column = self._columns.get(field)
                first = -np.inf if start is None else microseconds(start)
                last = np.inf if end is None else np.nextafter(microseconds(end), -np.inf)
                return BitMap() if column is None else column.between(first, last, among)
            case FieldExists(_, "id"):
                return everything
            case FieldExists(_, field) if field in self._columns:
                return self._columns[field].between(-np.inf, np.inf, among)
            case FieldExists(_, field):
                return _united(self._words.get(field, {}).values(), among)


def _united(bitmaps: Iterable[BitMap], among: BitMap | None) -> BitMap:
    return BitMap.union(BitMap(), *(bitmaps if among is None else (bitmap & among for bitmap in bitmaps)))


def _terms(item: Item) -> Iterator[tuple[str, str | bool | float]]:
    """Field and value of everything that can be filtered; numbers and times as floats."""
    for category in dict.fromkeys(item.categories):
        yield "categories", category
    if item.language:
        yield "language", item.language
    if item.created_at is not None:
        yield "created_at", microseconds(item.created_at)
    for name, value in item.attributes.items():
        field = f"attributes.{name}"
        if isinstance(value, tuple):
            for word in value:
                yield field, word
        elif isinstance(value, datetime):
            yield field, microseconds(value)
        elif isinstance(value, (bool, str)):
            yield field, value
        else:
            yield field, float(value)
