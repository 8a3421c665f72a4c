"""How varied a list is, in two figures a person can check by eye."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from zhiyin.common.v1 import item_pb2


def distinct_categories(items: Sequence[item_pb2.Item]) -> int:
    """How many different categories, taken whole (field and genre), the items have."""
    return len({tuple(item.categories) for item in items})


def unlike_pairs(items: Sequence[item_pb2.Item]) -> float:
    """Share of the pairs of items that have no category in common, in [0,1]; 0 for fewer than two items."""
    pairs = list(combinations([set(item.categories) for item in items], 2))
    return sum(not (first & second) for first, second in pairs) / len(pairs) if pairs else 0.0
