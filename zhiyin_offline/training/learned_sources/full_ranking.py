"""How well something that scores all items finds the targets by itself: what the settings of a source are chosen by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.interactions import recent_items
from zhiyin_offline.evaluation.protocols import Case, done_with
from zhiyin_offline.training.draws import drawn

Floats = NDArray[np.float32]
MAX_LIKES = 50
"""Latest items of a history that sources read."""

_MAX_CASES = 1_500
_BATCH = 250
_K = 10


class FullRanking:
    """Cases, ready to be asked again and again.

    Args:
        dataset: The record.
        cases: Drawn evenly from when there are more than 1,500.
        seed: Of the draw.
    """

    def __init__(self, dataset: Dataset, cases: Sequence[Case], seed: int) -> None:
        self.cases = drawn(cases, _MAX_CASES, seed)
        self.items = len(dataset.items)
        self._targets = np.array([case.target for case in self.cases], np.int64)
        done = done_with(dataset)
        self._done = [dataset.events.item[case.history[done[case.history]]] for case in self.cases]
        self.histories = [recent_items(dataset, case)[:MAX_LIKES] for case in self.cases]

    def queries(self, decay: float) -> sp.csr_matrix:
        """Histories as rows of weights, `decay` to the power of the place, shape (cases, items)."""
        lengths = [len(history) for history in self.histories]
        bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        weights = np.concatenate([decay ** np.arange(n) for n in lengths] or [np.empty(0)]).astype(np.float32)
        columns = np.concatenate(self.histories) if self.histories else np.empty(0, np.int32)
        return sp.csr_matrix((weights, columns, bounds), shape=(len(self.cases), self.items))

    def ndcg(self, scores: Callable[[slice], Floats]) -> float:
        """Mean NDCG@10 of all items in order of score, without those that a user is done with; equals share places.

        Args:
            scores: Of a slice of the cases, shape (len(slice), items). The array is changed.
        """
        total = 0.0
        for start in range(0, len(self.cases), _BATCH):
            part = slice(start, min(start + _BATCH, len(self.cases)))
            values = scores(part)
            own = values[np.arange(len(values)), self._targets[part]].copy()
            for row, done in enumerate(self._done[part]):
                values[row, done] = -np.inf
            above = np.count_nonzero(values > own[:, None], axis=1)
            equal = np.count_nonzero(values == own[:, None], axis=1)
            places = above + np.maximum(equal - 1, 0) / 2
            total += float(np.where(places < _K, 1.0 / np.log2(places + 2.0), 0.0).sum())
        return total / max(len(self.cases), 1)
