"""Matrix factorisation of implicit feedback by alternating least squares (Hu, Koren, Volinsky 2008)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.interactions import recent_items, training_matrix
from zhiyin_offline.evaluation.methods import Scores
from zhiyin_offline.evaluation.protocols import Case, Split


class AlsScorer:
    """Score = item factors . user factors, these computed from the case's history (fold-in), as for a new user.

    Args:
        seed: Of the first factors.
        factors: Components of a vector; on small data an eighth of the items, for more would learn pairs by heart.
        regularization: Pulls factors towards zero.
        confidence: Weight of an observed pair; an unobserved one weighs 1.
        iterations: Alternations.
    """

    name = "als"

    def __init__(
        self,
        seed: int = 0,
        factors: int = 64,
        regularization: float = 0.05,
        confidence: float = 10.0,
        iterations: int = 12,
    ) -> None:
        self._seed, self._factors, self._regularization = seed, factors, regularization
        self._confidence, self._iterations = confidence, iterations

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Alternates, with `implicit`."""
        self._dataset = dataset
        matrix = training_matrix(dataset, split.training)
        factors = min(self._factors, max(min(matrix.shape) // 8, 1))
        # Threads go over users; a BLAS with threads of its own inside each would slow them down.
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=factors,
                regularization=self._regularization,
                alpha=self._confidence,
                iterations=self._iterations,
                random_state=self._seed,
            )
            model.fit(matrix, show_progress=False)
        self._items = np.asarray(model.item_factors, dtype=np.float32)
        everything = self._items.T.astype(np.float64) @ self._items
        self._unobserved = everything + self._regularization * np.eye(factors)

    def scores(self, cases: Sequence[Case]) -> Scores:
        """Folds every history in, then one product."""
        users = np.zeros((len(cases), self._items.shape[1]), dtype=np.float32)
        for row, case in enumerate(cases):
            known = self._items[recent_items(self._dataset, case)].astype(np.float64)
            if len(known):
                weighed = self._unobserved + (self._confidence - 1) * (known.T @ known)
                users[row] = np.linalg.solve(weighed, self._confidence * known.sum(axis=0))
        out: Scores = users @ self._items.T
        return out
