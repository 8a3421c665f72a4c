"""What is known of those who act, and of the circumstances in which they do: which of it is worth reading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ranking_service.attribute_features.asker import circumstances
from ranking_service.attribute_features.feature_spec import CIRCUMSTANCES, OF_USER, Side, number_of, words_of
from service_runtime.attributes import AttributeScalar, from_proto
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.protocols import Rows

_MOST_OF_USERS = 8
# Share of users, or of events, of whom the value is known; and share of those who do not have it for themselves alone.
_LEAST_KNOWN, _LEAST_SHARED = 0.1, 0.5
_MOST_VALUES = 32
_RANGES = 4


@dataclass(frozen=True)
class KnownSide:
    """A side, and the words by which each training event's side is known, none where it is not: length (rows,)."""

    side: Side
    words: Sequence[tuple[str, ...]]


def known_sides(dataset: Dataset, rows: Rows) -> list[KnownSide]:
    """Sides of some events: attributes of users, then circumstances."""
    events = dataset.events
    users = events.user[rows].tolist()
    attributes = {
        number: from_proto(dataset.users[dataset.user_ids[number]].attributes)
        for number in sorted(set(users))
        if dataset.user_ids[number] in dataset.users
    }
    found: list[tuple[float, KnownSide]] = []
    for name in sorted({name for of_user in attributes.values() for name in of_user}):
        values = {number: of_user[name] for number, of_user in attributes.items() if name in of_user}
        side, known = _side(OF_USER + name, list(values.values())), len(values) / len(set(users))
        if side is not None and known >= _LEAST_KNOWN:
            words = {number: side.words(value) for number, value in values.items()}
            found.append((known, KnownSide(side, [words.get(user, ()) for user in users])))
    found.sort(key=lambda entry: -entry[0])
    sides = [known_side for _, known_side in found[:_MOST_OF_USERS]]
    told = [_circumstances(dataset, row) for row in rows.tolist()]
    for name in CIRCUMSTANCES:
        values_of_events = [entry[name] for entry in told]
        there = [value for value in values_of_events if value]
        circumstance = _side(name, list(there))
        if circumstance is not None and len(there) >= _LEAST_KNOWN * len(rows):
            sides.append(KnownSide(circumstance, [(value,) if value else () for value in values_of_events]))
    return sides


def _circumstances(dataset: Dataset, row: int) -> dict[str, str]:
    context = dataset.events.context_of(row)
    return circumstances(float(dataset.events.time[row]), context.locale, context.device, context.place)


def _side(name: str, values: list[AttributeScalar]) -> Side | None:
    """None where everybody is alike, or hardly two are."""
    numbers = [number for value in values if not words_of(value) and (number := number_of(value)) is not None]
    if numbers:
        told = np.array(numbers)
        if told.min() == told.max():
            return None
        edges = np.unique(np.quantile(told, np.linspace(0, 1, _RANGES + 1)[1:-1]))
        return Side(name, "number", (), float(told.mean()), float(told.std()), tuple(edges.tolist()))
    having = Counter(word for value in values for word in words_of(value))
    shared = {word: count for word, count in having.items() if count > 1}
    with_shared = sum(bool(shared.keys() & set(words_of(value))) for value in values)
    if len(having) < 2 or with_shared < _LEAST_SHARED * len(values):
        return None
    most = sorted(shared.items(), key=lambda entry: (-entry[1], entry[0]))[:_MOST_VALUES]
    return Side(name, "words", tuple(word for word, _ in most))
