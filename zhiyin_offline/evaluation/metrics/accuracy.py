"""Accuracy of lists when each case has one relevant item: its target.

With one relevant item at 1-based place p of a list cut at k (p <= k; everything is 0 otherwise):

    precision = 1/k    recall = hit rate = 1    F1 = 2/(k + 1)    average precision = reciprocal rank = 1/p
    nDCG = 1/log2(p + 1)

so recall equals the hit rate and MAP equals MRR. Both names are given since both are looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from zhiyin_offline.evaluation.methods import Lists

CUTOFFS = (5, 10, 20)
Places = NDArray[np.float64]
"""1-based place of the target, infinity where the list misses it; shape (cases,)."""
Values = NDArray[np.float64]


def places(lists: Lists, targets: NDArray[np.int32]) -> Places:
    """Where each list has its target."""
    hit = lists == targets[:, None]
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1.0, np.inf)


_FORMULAS: dict[str, Callable[[Places, int], Values]] = {
    "precision": lambda place, k: np.full_like(place, 1 / k),
    "recall": lambda place, k: np.ones_like(place),
    "f1": lambda place, k: np.full_like(place, 2 / (k + 1)),
    "map": lambda place, k: 1 / place,
    "mrr": lambda place, k: 1 / place,
    "ndcg": lambda place, k: 1 / np.log2(place + 1),
    "hit_rate": lambda place, k: np.ones_like(place),
}


def accuracy(lists: Lists, targets: NDArray[np.int32], cutoffs: Sequence[int] = CUTOFFS) -> dict[str, Values]:
    """Every metric of every case, keyed such as `ndcg@10`; shape (cases,)."""
    place = places(lists, targets)
    return {
        f"{name}@{k}": np.where(place <= k, formula(place, k), 0.0)
        for name, formula in _FORMULAS.items()
        for k in cutoffs
    }
