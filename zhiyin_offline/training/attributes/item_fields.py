"""Which fields of items are worth reading: those that many have and that put items together, a dozen at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ranking_service.attribute_features.feature_spec import (
    ATTRIBUTES,
    CATEGORIES,
    NumberField,
    WordField,
    number_of,
    words_of,
)
from ranking_service.attribute_features.item_facts import attribute
from service_runtime.attributes import AttributeScalar
from zhiyin.common.v1.item_pb2 import Item

Values = Mapping[int, AttributeScalar]
"""Of a field, by item number; items without one are not there."""

_MOST_WORDS, _MOST_NUMBERS = 6, 6
# Share of the events whose item has the attribute, and, of words, shares it with another item.
_LEAST = 0.1
_WIDEST = 8
# Of these lengths of an item's list nearly all are as long or shorter.
_NEARLY_ALL = 0.95
# Words of a field that are counted, and events that one needs for it.
_MOST_COUNTED, _FEWEST_EVENTS = 5_000, 2
# Texts are no words: what is told of three hundred candidates has to fit into a reply.
_LONGEST_BYTES = 256
# A mean of so many medians: few large values, as of prices.
_SKEWED = 2.0


def item_fields(
    items: Sequence[Item], events: NDArray[np.int64]
) -> tuple[tuple[WordField, ...], tuple[NumberField, ...]]:
    """The fields to read, the most useful first; `categories` before all others.

    Args:
        items: The catalogue.
        events: Positive training events of each item, shape (items,). Items without any say nothing here.
    """
    occurring = np.flatnonzero(events).tolist()
    values = _values(items, occurring)
    total = max(int(events.sum()), 1)
    words: list[tuple[float, WordField]] = []
    numbers: list[tuple[float, NumberField]] = []
    for name in sorted(values):
        of_items = values[name]
        if any(words_of(value) and not isinstance(value, bool) for value in of_items.values()):
            useful = _sharing(of_items, events) / total
            if name == CATEGORIES or (useful >= _LEAST and _bytes(of_items) <= _LONGEST_BYTES):
                words.append((2.0 if name == CATEGORIES else useful, _word_field(name, of_items, events)))
        else:
            coverage = sum(int(events[item]) for item in of_items) / total
            number = _number_field(name, of_items) if coverage >= _LEAST else None
            if number is not None:
                numbers.append((coverage, number))
    # Stable: equals stay in the order of their names.
    words.sort(key=lambda entry: -entry[0])
    numbers.sort(key=lambda entry: -entry[0])
    return (
        tuple(field for _, field in words[: _MOST_WORDS + 1]),
        tuple(field for _, field in numbers[:_MOST_NUMBERS]),
    )


def _values(items: Sequence[Item], numbers: Sequence[int]) -> dict[str, dict[int, AttributeScalar]]:
    values: dict[str, dict[int, AttributeScalar]] = {}
    for number in numbers:
        item = items[number]
        if item.categories:
            values.setdefault(CATEGORIES, {})[number] = tuple(item.categories)
        for name in item.attributes:
            value = attribute(item, name)
            if value is not None:
                values.setdefault(ATTRIBUTES + name, {})[number] = value
    return values


def _sharing(values: Values, events: NDArray[np.int64]) -> int:
    """Events on items that share a word with another item, and not with all of them."""
    having = Counter(word for value in values.values() for word in set(words_of(value)))
    telling = {word for word, count in having.items() if 1 < count < len(values)}
    return sum(int(events[item]) for item, value in values.items() if telling.intersection(words_of(value)))


def _bytes(values: Values) -> float:
    return float(np.mean([sum(len(word.encode()) for word in words_of(value)) for value in values.values()]))


def _word_field(name: str, values: Values, events: NDArray[np.int64]) -> WordField:
    lengths = np.sort([len(words_of(value)) for value in values.values()])
    width = int(lengths[round(_NEARLY_ALL * (len(lengths) - 1))])
    seen: Counter[str] = Counter()
    for item, value in values.items():
        for word in set(words_of(value)):
            seen[word] += int(events[item])
    # By word among equals: a training gives the same bundle again.
    most = sorted(seen.items(), key=lambda entry: (-entry[1], entry[0]))[:_MOST_COUNTED]
    counted = {word: float(count) for word, count in most if count >= _FEWEST_EVENTS}
    return WordField(name, min(max(width, 1), _WIDEST), counted)


def _number_field(name: str, values: Values) -> NumberField | None:
    """None where all have the same number."""
    raw = np.array([number for value in values.values() if (number := number_of(value)) is not None], np.float64)
    if not len(raw) or raw.min() == raw.max():
        return None
    median = float(np.median(raw))
    log = bool(raw.min() >= 0 and raw.mean() > _SKEWED * median)
    told = np.log1p(raw) if log else raw
    plain = NumberField(name, float(told.mean()), float(told.std()) or 1.0, log=log)
    return NumberField(name, plain.mean, plain.scale, round(plain.scaled(median), 6), log)
