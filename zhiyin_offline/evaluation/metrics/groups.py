"""Which group a case belongs to, for tables that show who is served worse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service_runtime.attributes import AttributeScalar, from_proto
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.protocols import Case, Split

Groups = dict[str, NDArray[np.bool_]]
"""Members by the name of a group, shape (cases,)."""

_REGULAR_FROM, _HEAVY_FROM = 5, 20
_MAX_VALUES = 10
HISTORY_BUCKETS = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 9), (10, 19), (20, 49), (50, 99), (100, None))


def groups(dataset: Dataset, split: Split) -> Groups:
    """New, regular and heavy users; cold and warm items; and every attribute of users by its values."""
    lengths = history_lengths(split.cases)
    trained = np.zeros(len(dataset.items), dtype=np.bool_)
    items = dataset.events.item[split.training]
    trained[items[items >= 0]] = True
    warm = trained[[case.target for case in split.cases]] if split.cases else np.empty(0, dtype=np.bool_)
    out = {
        f"users: new (<{_REGULAR_FROM} events)": lengths < _REGULAR_FROM,
        "users: regular": (lengths >= _REGULAR_FROM) & (lengths < _HEAVY_FROM),
        f"users: heavy (>={_HEAVY_FROM} events)": lengths >= _HEAVY_FROM,
        "items: warm": warm,
        "items: cold (no training event)": ~warm,
    }
    out |= _attribute_groups(dataset, split.cases)
    return {name: members for name, members in out.items() if members.any()}


def history_buckets(cases: Sequence[Case]) -> Groups:
    """Cases by how many events of their user were known, for learning curves."""
    lengths = history_lengths(cases)
    out = {}
    for low, high in HISTORY_BUCKETS:
        members = (lengths >= low) & (lengths <= high) if high is not None else lengths >= low
        name = f"{low}+" if high is None else str(low) if high == low else f"{low}-{high}"
        out[name] = members
    return {name: members for name, members in out.items() if members.any()}


def history_lengths(cases: Sequence[Case]) -> NDArray[np.int64]:
    """Events known of each case's user."""
    return np.array([len(case.history) for case in cases], dtype=np.int64)


def _attribute_groups(dataset: Dataset, cases: Sequence[Case]) -> Groups:
    attributes = {id_: from_proto(user.attributes) for id_, user in dataset.users.items()}
    by_case = [attributes.get(dataset.user_ids[case.user], {}) for case in cases]
    out: Groups = {}
    for name in sorted({name for known in attributes.values() for name in known}):
        labels = _labels([known.get(name) for known in by_case])
        values = [label for label in dict.fromkeys(labels) if label is not None]
        if len(values) <= _MAX_VALUES:
            for value in sorted(values):
                out[f"{name}: {value}"] = np.array([label == value for label in labels], dtype=np.bool_)
    return out


def _labels(values: Sequence[AttributeScalar | None]) -> list[str | None]:
    """Texts and truths as they are, numbers of many values by thirds; lists and times are no groups."""
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    low, high = np.quantile(numbers, (1 / 3, 2 / 3)) if numbers else (0.0, 0.0)
    many = len(set(numbers)) > _MAX_VALUES

    def label(value: AttributeScalar | None) -> str | None:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str):
            return value
        if not isinstance(value, int | float):
            return None
        if not many:
            return f"{value:g}"
        if value <= low:
            return f"up to {low:g}"
        return f"up to {high:g}" if value <= high else f"above {high:g}"

    return [label(value) for value in values]
