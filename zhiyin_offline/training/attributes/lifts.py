"""How much more often those with some value choose items with some word: counted over the training's events."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ranking_service.attribute_features.feature_spec import Lift, WordField
from ranking_service.attribute_features.item_facts import field_words
from zhiyin.common.v1.item_pb2 import Item
from zhiyin_offline.training.attributes.sides import KnownSide

_MOST = 8
# Fields and words of each that are looked at, the most frequent ones.
_FIELDS, _WORDS, _VALUES = 3, 500, 32
# Events that hold a lift back, see `Lift`.
_HELD_BACK = 5.0
# Smaller lifts are left out of the table.
_SMALLEST = 0.05
# Nats that the value tells about the word: below, what is seen is mostly chance.
_LEAST_TOLD = 0.01


def lifts_of(
    items: Sequence[Item], chosen: NDArray[np.int32], sides: Sequence[KnownSide], fields: Sequence[WordField]
) -> tuple[Lift, ...]:
    """The lifts that tell most.

    Args:
        items: The catalogue.
        chosen: Item number of each positive training event.
        sides: With the words of the same events.
        fields: Of items, the most useful first.
    """
    found: list[tuple[float, Lift]] = []
    for field in fields[:_FIELDS]:
        words = list(field.events)[:_WORDS]
        of_items = _incidence(items, field, words)
        for known in sides:
            told, lift = _lift(known, field.name, words, of_items[chosen])
            if lift is not None and told >= _LEAST_TOLD:
                found.append((told, lift))
    found.sort(key=lambda entry: -entry[0])
    return tuple(lift for _, lift in found[:_MOST])


def _lift(known: KnownSide, field: str, words: Sequence[str], chosen: csr_matrix) -> tuple[float, Lift | None]:
    """What a side tells about a field in nats, and the lift."""
    values = known.side.values[:_VALUES] or sorted({word for entry in known.words for word in entry})
    place = {value: row for row, value in enumerate(values)}
    pairs = [(place[word], event) for event, entry in enumerate(known.words) for word in entry if word in place]
    if not pairs or not words:
        return 0.0, None
    rows, events = np.array(pairs).T
    having = csr_matrix((np.ones(len(rows)), (rows, events)), shape=(len(values), chosen.shape[0]))
    seen = np.asarray((having @ chosen).todense())
    of_value = np.asarray(having.sum(axis=1))
    expected = of_value * seen.sum(axis=0) / of_value.sum()
    lift = np.log((seen + _HELD_BACK) / (expected + _HELD_BACK))
    table = {
        value: {words[column]: round(float(lift[row, column]), 3) for column in np.flatnonzero(large).tolist()}
        for row, (value, large) in enumerate(zip(values, np.abs(lift) >= _SMALLEST, strict=True))
    }
    return float((seen * lift).sum() / of_value.sum()), Lift(known.side.name, field, table)


def _incidence(items: Sequence[Item], field: WordField, words: Sequence[str]) -> csr_matrix:
    """Which items have which words, shape (items, words)."""
    place = {word: column for column, word in enumerate(words)}
    pairs = [
        (number, place[word])
        for number, item in enumerate(items)
        for word in field_words(item, field.name)[: field.width]
        if word in place
    ]
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    return csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(items), len(words)))
