"""Cosine, Pearson and Jaccard similarity, of two vectors and of all pairs of two sets of rows.

All three follow from dot products and sums, so that one sparse matrix product gives all pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

SimilarityName = Literal["cosine", "pearson", "jaccard"]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Products:
    """What the similarities of rows a (shape (m, length)) with rows b (shape (n, length)) are made of.

    Attributes:
        dot: Dot products, shape (m, n).
        sum_a, sum_b: Sums of the rows, shapes (m, 1) and (1, n).
        square_a, square_b: Squared lengths of the rows, same shapes.
        length: Components of a row.
    """

    dot: NDArray[Any]
    sum_a: NDArray[Any]
    sum_b: NDArray[Any]
    square_a: NDArray[Any]
    square_b: NDArray[Any]
    length: int


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> NDArray[Any]:
    """0 where there is nothing to divide by: a row of zeros, or for Pearson of equal values, is like nothing."""
    out: NDArray[Any] = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return out


def _cosine(of: Products) -> NDArray[Any]:
    return _ratio(of.dot, np.sqrt(of.square_a * of.square_b))


def _pearson(of: Products) -> NDArray[Any]:
    # float64: the two products are nearly equal where rows are sparse and long.
    spread_a = np.maximum(of.length * of.square_a.astype(np.float64) - of.sum_a.astype(np.float64) ** 2, 0.0)
    spread_b = np.maximum(of.length * of.square_b.astype(np.float64) - of.sum_b.astype(np.float64) ** 2, 0.0)
    shared = of.length * of.dot.astype(np.float64) - of.sum_a.astype(np.float64) * of.sum_b
    return _ratio(shared, np.sqrt(spread_a) * np.sqrt(spread_b))


def _jaccard(of: Products) -> NDArray[Any]:
    return _ratio(of.dot, of.sum_a + of.sum_b - of.dot)


_FORMULAS: dict[SimilarityName, Callable[[Products], NDArray[Any]]] = {
    "cosine": _cosine,
    "pearson": _pearson,
    "jaccard": _jaccard,
}


def cosine(a: ArrayLike, b: ArrayLike) -> float:
    """a.b / (|a| |b|); 0 when either is zero."""
    return float(_cosine(_of_vectors(a, b))[0, 0])


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """The cosine of both after their own mean is subtracted; 0 when either is constant."""
    return float(_pearson(_of_vectors(a, b))[0, 0])


def jaccard(a: Collection[object], b: Collection[object]) -> float:
    """Shared members by all members, of two sets; 0 when both are empty."""
    every = list(dict.fromkeys([*a, *b]))
    return float(_jaccard(_of_vectors([m in a for m in every], [m in b for m in every]))[0, 0])


def all_pairs(name: SimilarityName, a: sp.csr_matrix, b: sp.csr_matrix) -> Floats:
    """Similarities of every row of `a` with every row of `b`, dense, shape (rows of a, rows of b).

    Jaccard reads rows as sets of their non-zero columns.
    """
    if name == "jaccard":
        a, b = _ones(a), _ones(b)
    dot = (a @ b.T).toarray()
    products = Products(
        dot,
        np.asarray(a.sum(axis=1)).reshape(-1, 1),
        np.asarray(b.sum(axis=1)).reshape(1, -1),
        np.asarray(a.multiply(a).sum(axis=1)).reshape(-1, 1),
        np.asarray(b.multiply(b).sum(axis=1)).reshape(1, -1),
        a.shape[1],
    )
    return _FORMULAS[name](products).astype(np.float32)


def strongest(similarities: Floats, neighbours: int) -> sp.csr_matrix:
    """The same with only the so many highest positive values of each row kept."""
    kept = min(neighbours, similarities.shape[1])
    columns = (
        np.argpartition(-similarities, kept - 1, axis=1)[:, :kept] if kept else np.empty((len(similarities), 0), int)
    )
    values = np.take_along_axis(similarities, columns, axis=1)
    rows = np.repeat(np.arange(len(similarities)), kept)
    positive = values.ravel() > 0
    data = (values.ravel()[positive], (rows[positive], columns.ravel()[positive]))
    return sp.csr_matrix(data, shape=similarities.shape)


def _of_vectors(a: ArrayLike, b: ArrayLike) -> Products:
    x, y = np.asarray(a, dtype=np.float64).reshape(1, -1), np.asarray(b, dtype=np.float64).reshape(1, -1)
    sums = [part.sum(axis=1, keepdims=True) for part in (x, y, x * x, y * y)]
    return Products(x @ y.T, sums[0], sums[1], sums[2], sums[3], x.shape[1])


def _ones(matrix: sp.csr_matrix) -> sp.csr_matrix:
    out = matrix.copy()
    out.eliminate_zeros()
    out.data = np.ones_like(out.data)
    return out
