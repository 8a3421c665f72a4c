"""A linear item-to-item model with a closed form: EASE (Steck 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.interactions import query_matrix, training_matrix
from zhiyin_offline.evaluation.methods import Scores
from zhiyin_offline.evaluation.protocols import Case, Split


class EaseScorer:
    """Score = history . B, with B = I - P / diag(P) and P = (X'X + regularization I)^-1.

    Args:
        regularization: Added to the diagonal.
        decay: Weight of an item of the history by the weight of the item after it.
        max_items: The model is dense; items beyond the so many that most users acted on score 0. 12,500 take 0.6 GB.
    """

    name = "ease"

    def __init__(self, regularization: float = 300.0, decay: float = 0.6, max_items: int = 12_500) -> None:
        self._regularization, self._decay, self._max_items = regularization, decay, max_items

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Fits the model of the items that most users acted on."""
        self._dataset = dataset
        matrix = training_matrix(dataset, split.training)
        users = np.asarray(matrix.sum(axis=0)).ravel()
        known = np.flatnonzero(users)
        self._known = np.sort(known[np.argsort(-users[known], kind="stable")[: self._max_items]])
        if not len(self._known):
            return
        self._model = ease_model(matrix[:, self._known], self._regularization)

    def scores(self, cases: Sequence[Case]) -> Scores:
        """One product."""
        out = np.zeros((len(cases), len(self._dataset.items)), dtype=np.float32)
        if len(self._known):
            out[:, self._known] = query_matrix(self._dataset, cases, self._decay)[:, self._known] @ self._model
        return out


def ease_model(matrix: sp.csr_matrix, regularization: float) -> Scores:
    """B of the formula above, shape (items, items), with a diagonal of zeros. Inverts one matrix, in place.

    Args:
        matrix: Who acted on what, shape (users, items).
        regularization: Added to the diagonal.
    """
    gram = np.asfortranarray((matrix.T @ matrix).toarray())
    gram[np.diag_indices_from(gram)] += regularization
    # Cholesky and inverse from it: half the work of a general inverse and no second copy.
    factor, _ = lapack.spotrf(gram, lower=1, overwrite_a=1)
    inverse, _ = lapack.spotri(factor, lower=1, overwrite_c=1)
    _mirror(inverse)
    # LAPACK's order is by column. The inverse is symmetric, so its transpose is the same matrix by row, which a
    # sparse query can be multiplied with as it is.
    model: Scores = inverse.T
    model /= -np.diag(model).copy()
    model[np.diag_indices_from(model)] = 0.0
    return model


def _mirror(lower: Scores, block: int = 1024) -> None:
    """Writes the lower triangle above the diagonal, block by block."""
    for start in range(0, len(lower), block):
        end = min(start + block, len(lower))
        square = np.tril(lower[start:end, start:end])
        lower[start:end, start:end] = square + np.tril(square, -1).T
        lower[start:end, end:] = lower[end:, start:end].T
