"""Pure singular value decomposition of who acted on what (PureSVD; Cremonesi, Koren, Turrin 2010)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse.linalg import svds

from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.interactions import query_matrix, training_matrix
from zhiyin_offline.evaluation.methods import Scores
from zhiyin_offline.evaluation.protocols import Case, Split


class SvdScorer:
    """Score = the history projected on the leading singular vectors of items and back.

    Args:
        seed: Of the iteration's start.
        rank: Singular vectors; on small data an eighth of what there is, for all of them would give the history back.
    """

    name = "svd"

    def __init__(self, seed: int = 0, rank: int = 128) -> None:
        self._seed, self._rank = seed, rank

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Finds the leading right singular vectors."""
        self._dataset = dataset
        matrix = training_matrix(dataset, split.training)
        rank = min(self._rank, max(min(matrix.shape) // 8, 1), min(matrix.shape) - 1)
        if rank < 1 or matrix.nnz == 0:
            self._basis = np.zeros((1, matrix.shape[1]), dtype=np.float32)
            return
        start = np.random.default_rng(self._seed).standard_normal(min(matrix.shape)).astype(np.float32)
        _, _, basis = svds(matrix, k=rank, v0=start, return_singular_vectors="vh")
        self._basis = np.asarray(basis, dtype=np.float32)

    def scores(self, cases: Sequence[Case]) -> Scores:
        """Projects."""
        out: Scores = np.asarray(query_matrix(self._dataset, cases) @ self._basis.T, dtype=np.float32) @ self._basis
        return out
