"""Positive events as sparse matrices: what was learned from, and what a case asks with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.protocols import Case, Rows


def training_matrix(dataset: Dataset, rows: Rows) -> sp.csr_matrix:
    """Who acted positively on what in these rows, shape (users, items), ones in float32."""
    events = dataset.events
    rows = rows[dataset.positive[rows]]
    shape = (len(dataset.user_ids), len(dataset.items))
    out = sp.csr_matrix((np.ones(len(rows), dtype=np.float32), (events.user[rows], events.item[rows])), shape=shape)
    out.sum_duplicates()
    out.data[:] = 1.0
    return out


def query_matrix(dataset: Dataset, cases: Sequence[Case], decay: float = 1.0) -> sp.csr_matrix:
    """What each case's user acted on positively, shape (cases, items), float32.

    Args:
        dataset: What the histories are rows of.
        cases: One row each.
        decay: The weight of an item is `decay` to the power of how many distinct items came after it: (0, 1].
    """
    indices: list[NDArray[np.int32]] = []
    weights: list[NDArray[np.float32]] = []
    for case in cases:
        items = recent_items(dataset, case)
        indices.append(items)
        weights.append(np.power(np.float32(decay), np.arange(len(items), dtype=np.float32)))
    bounds = np.concatenate([[0], np.cumsum([len(part) for part in indices])]).astype(np.int64)
    columns = np.concatenate(indices) if indices else np.empty(0, dtype=np.int32)
    data = np.concatenate(weights) if weights else np.empty(0, dtype=np.float32)
    return sp.csr_matrix((data, columns, bounds), shape=(len(cases), len(dataset.items)))


def recent_items(dataset: Dataset, case: Case) -> NDArray[np.int32]:
    """Distinct items that the case's user acted on positively, latest first."""
    rows = case.history[dataset.positive[case.history]]
    items = dataset.events.item[rows][::-1]
    _, first = np.unique(items, return_index=True)
    out: NDArray[np.int32] = items[np.sort(first)]
    return out
