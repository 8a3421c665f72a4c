"""Compares a query with every vector: the oracle of the tests, the plan for small subsets, and the store of vectors.

Labels are row numbers of one growing matrix. Up to about 10,000 vectors this is as fast as a graph, and never misses.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from retrieval_service.vector_index import Labels, Vectors

# Scores this close in float32 may be equal in truth: the order of additions differs between matrix shapes.
_ROUNDING = 2e-6
# How many rows beyond the limit are kept because they tie with the last one.
_TIES = 1000
# Above this share of the rows, scanning all and masking beats gathering (measured: they cross near a quarter).
_GATHER_SHARE = 0.25
_CHUNK = 256
# Rows of a piece of a scan: 384 dimensions of 1,024 rows are 1.5 MB, which a second-level cache holds.
_SCAN_CHUNK = 1024


class ExactIndex:
    """A growable matrix of vectors with row numbers as labels.

    Not safe for a writer beside readers: growing may move the matrix.
    """

    def __init__(self, dimensions: int, capacity: int = 1024) -> None:
        self.dimensions = dimensions
        self._matrix: Vectors = np.empty((capacity, dimensions), dtype=np.float32)
        self._alive: NDArray[np.bool_] = np.zeros(capacity, dtype=np.bool_)
        self.rows = 0
        self._live = 0
        self._own = threading.local()

    @classmethod
    def of(cls, matrix: Vectors, alive: NDArray[np.bool_]) -> ExactIndex:
        """An index over rows read from a file; takes the arrays over."""
        index = cls(matrix.shape[1], capacity=0)
        index._matrix, index._alive = matrix, alive
        index.rows, index._live = len(matrix), int(alive.sum())
        return index

    def __len__(self) -> int:
        return self._live

    @property
    def matrix(self) -> Vectors:
        """All rows, live and dead; a view."""
        return self._matrix[: self.rows]

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which rows are live; a view."""
        return self._alive[: self.rows]

    def add(self, labels: Labels, vectors: Vectors) -> None:
        """Appends rows; labels must be the next row numbers."""
        end = self.rows + len(labels)
        if len(labels) and (labels[0] != self.rows or labels[-1] != end - 1):
            raise ValueError("labels of an exact index are its next row numbers")
        if end > len(self._matrix):
            # realloc moves pages of a large matrix instead of copying them.
            capacity = max(end, len(self._matrix) + max(1024, len(self._matrix) // 4))
            self._matrix.resize((capacity, self.dimensions), refcheck=False)
            self._alive.resize(capacity, refcheck=False)
        self._matrix[self.rows : end] = vectors
        self._alive[self.rows : end] = True
        self.rows = end
        self._live += len(labels)

    def remove(self, labels: Labels) -> None:
        """Makes rows unfindable; their space comes back at the next rebuild."""
        self._live -= int(self._alive[labels].sum())
        self._alive[labels] = False

    def vectors(self, labels: Labels) -> Vectors:
        """A copy of some rows."""
        return self._matrix.take(labels, axis=0)

    def search(self, query: NDArray[np.float32], limit: int, among: Labels | None = None) -> Labels:
        """The best live rows, with those that tie with the last of them.

        Args:
            query: Shape (dimensions,).
            limit: Rows wanted, at least 1; up to 1,000 more come back when they tie.
            among: Only these rows. None: all.
        """
        if among is None or self.scans(len(among)):
            return self.pick(self.products(query[None, :])[0], limit, among)
        rows = among[self._alive[among]]
        return rows[_best(self._gathered_scores(query, rows), limit)]

    def scans(self, count: int) -> bool:
        """Whether comparing with all rows and masking beats gathering `count` of them."""
        return count > _GATHER_SHARE * self.rows

    def products(self, queries: Vectors) -> Vectors:
        """Inner products of several queries with every row, dead ones too, shape (queries, rows).

        Goes over the matrix once, a piece that stays in the cache at a time, however many queries there are: several
        queries of one request cost little more memory traffic than one.
        """
        out = np.empty((len(queries), self.rows), dtype=np.float32)
        for start in range(0, self.rows, _SCAN_CHUNK):
            piece = self._matrix[start : min(start + _SCAN_CHUNK, self.rows)]
            for query, row in zip(queries, out, strict=True):
                np.dot(piece, query, out=row[start : start + len(piece)])
        return out

    def pick(
        self, products: NDArray[np.float32], limit: int, among: Labels | None = None, denied: Labels | None = None
    ) -> Labels:
        """As `search`, from the products of one query with every row.

        Args:
            products: Shape (rows,), one row of `products`; overwritten.
            limit: As in `search`.
            among: As in `search`.
            denied: Not these rows.
        """
        passes = self.alive
        if among is not None:
            listed = np.zeros(self.rows, dtype=np.bool_)
            listed[among] = True
            passes = passes & listed
        products[~passes] = -np.inf
        if denied is not None:
            products[denied] = -np.inf
        near = _best(products, limit)
        return near[products[near] > -np.inf]

    def _gathered_scores(self, query: NDArray[np.float32], rows: Labels) -> NDArray[np.float32]:
        """Inner products of scattered rows, a few hundred at a time through a buffer that stays in the cache.

        Gathering them all at once costs fresh pages for every search, which is more than the arithmetic.
        """
        buffer: Vectors | None = getattr(self._own, "buffer", None)
        if buffer is None:
            buffer = self._own.buffer = np.empty((_CHUNK, self.dimensions), dtype=np.float32)
        scores = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            # mode="clip" only because "raise" would gather into a buffer of numpy's own first.
            self._matrix.take(part, axis=0, out=buffer[: len(part)], mode="clip")
            np.dot(buffer[: len(part)], query, out=scores[start : start + len(part)])
        return scores

    def scores(self, query: NDArray[np.float32], labels: Labels) -> NDArray[np.float64]:
        """Inner products in float64, summed in the same order for every row: equal vectors get equal scores."""
        products = self.vectors(labels).astype(np.float64) * query.astype(np.float64)
        return np.asarray(products.sum(axis=1), dtype=np.float64)


def _best(scores: NDArray[np.float32], limit: int) -> Labels:
    """Positions of the largest scores and of those that may tie with the last of them."""
    if len(scores) <= limit:
        return np.arange(len(scores), dtype=np.int64)
    kth = np.partition(scores, len(scores) - limit)[len(scores) - limit]
    near = np.flatnonzero(scores >= kth - _ROUNDING)
    if len(near) > limit + _TIES:
        near = near[np.argsort(-scores[near], kind="stable")[: limit + _TIES]]
    return near
