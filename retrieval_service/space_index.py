"""The index of one version of one vector space: item numbers in, item numbers out.

Every vector is a row of one matrix (ExactIndex). Above a size the graph is worth its cost, rows are in a graph as well:
those below a watermark. The rest, the newest ones, are compared exactly, so a write is searchable once it is copied
into the matrix, and the graph takes it in afterwards, a few rows at a time. A vector that is replaced or deleted leaves
a dead row until the next rebuild.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from retrieval_service.centering import transform
from retrieval_service.exact_index import ExactIndex
from retrieval_service.hnsw_index import GraphTooSparseError, HnswIndex
from retrieval_service.read_write_lock import FairReadWriteLock
from retrieval_service.search_plan import Choice, Plan, choose, max_fetch
from retrieval_service.vector_index import Labels, Vectors

Numbers = NDArray[np.int64]
"""Item numbers, shape (n,): the service's own ids, never used twice in a catalogue."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """What all vectors of an index share.

    Attributes:
        dimensions: Components of a vector.
        mean: Subtracted from every raw vector, shape (dimensions,); None: nothing.
        epoch: Counts the renewals of the mean.
        normalize: True for cosine, False for the inner product.
    """

    dimensions: int
    mean: NDArray[np.float32] | None = None
    epoch: int = 0
    normalize: bool = True


@dataclass(frozen=True, slots=True)
class IndexQuery:
    """One query in the terms of the index.

    Attributes:
        limit: Hits wanted.
        vector: Raw, shape (dimensions,); None for a query by examples.
        examples: Item numbers and weights; used when there is no vector.
        allowed: Only these items; None: all.
        denied: Not these items, few.
        exact: Compare with every allowed item.
    """

    limit: int
    vector: NDArray[np.float32] | None = None
    examples: Sequence[tuple[int, float]] = ()
    allowed: BitMap | None = None
    denied: Sequence[int] = ()
    exact: bool = False


@dataclass(frozen=True, slots=True)
class IndexHits:
    """The best items, best first, with those that tie with the last one.

    Attributes:
        numbers: Item numbers.
        scores: Cosine or inner product of each, float64.
        plan: How they were found.
        vector: The query as the space compares it; zeros when it had none.
    """

    numbers: Numbers
    scores: NDArray[np.float64]
    plan: Plan
    vector: NDArray[np.float32]


class SpaceIndex:
    """Vectors of items under one geometry. Safe for many searching threads beside one that writes."""

    def __init__(self, geometry: Geometry, *, sequence: int = 0) -> None:
        self.geometry = geometry
        self.sequence = sequence
        self._exact = ExactIndex(geometry.dimensions)
        self._graph: HnswIndex | None = None
        self._in_graph = 0
        self._number_of_row: Numbers = np.empty(1024, dtype=np.int64)
        self._row_of_number: Numbers = np.full(1024, -1, dtype=np.int64)
        self._lock = FairReadWriteLock()

    @classmethod
    def restore(
        cls, geometry: Geometry, sequence: int, numbers: Numbers, matrix: Vectors, graph: HnswIndex | None
    ) -> SpaceIndex:
        """An index as `state` described it.

        Args:
            geometry: Of the vectors.
            sequence: The last write it has seen.
            numbers: The item of each row, -1 for dead rows.
            matrix: The rows, transformed.
            graph: Holds all live rows (and perhaps dead ones); None: there is none.
        """
        index = cls(geometry, sequence=sequence)
        alive = numbers >= 0
        index._exact = ExactIndex.of(matrix, alive)
        index._number_of_row = numbers.copy()
        live_rows = np.flatnonzero(alive)
        if len(live_rows):
            index._row_of_number = np.full(int(numbers.max()) + 1, -1, dtype=np.int64)
            index._row_of_number[numbers[live_rows]] = live_rows
        if graph is not None:
            index._graph, index._in_graph = graph, len(numbers)
        return index

    # ---- figures

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def has_graph(self) -> bool:
        """Whether searches may use a graph."""
        return self._graph is not None

    @property
    def graph_backlog(self) -> int:
        """Rows that the graph has not taken in yet."""
        return self._exact.rows - self._in_graph if self._graph is not None else 0

    @property
    def tombstones(self) -> int:
        """Dead rows."""
        return self._exact.rows - len(self._exact)

    # ---- writes

    def apply(self, sequence: int, numbers: Numbers, raw: Vectors, deleted: Numbers) -> None:
        """Replaces or adds the vectors of some items and drops those of others. Live writes and replay alike.

        Args:
            sequence: Of the write. One that was seen already is left out; 0: part of a replay whose last part says it.
            numbers: Items with a new vector, each once.
            raw: Their vectors, not centred.
            deleted: Items that are gone.
        """
        if sequence and sequence <= self.sequence:
            return
        vectors = transform(raw, self.geometry.mean, normalize=self.geometry.normalize)
        with self._lock.writing():
            self._kill(np.concatenate([numbers, deleted]))
            first = self._exact.rows
            rows = np.arange(first, first + len(numbers), dtype=np.int64)
            self._exact.add(rows, vectors)
            if len(numbers):
                self._number_of_row = _fit(self._number_of_row, first + len(numbers), fill=-1)
                self._number_of_row[rows] = numbers
                self._row_of_number = _fit(self._row_of_number, int(numbers.max()) + 1, fill=-1)
                self._row_of_number[numbers] = rows
            self.sequence = max(self.sequence, sequence)

    def add_graph(self) -> None:
        """Starts an empty graph; `absorb` fills it. Not while searches come in: they would trust it."""
        self._graph, self._in_graph = HnswIndex(self.geometry.dimensions, capacity=self._exact.rows), 0

    def absorb(self, max_rows: int) -> int:
        """Takes up to `max_rows` waiting rows into the graph while searches wait; returns how many it went over."""
        if self._graph is None:
            return 0
        with self._lock.writing():
            end = min(self._in_graph + max_rows, self._exact.rows)
            rows = np.arange(self._in_graph, end, dtype=np.int64)
            rows = rows[self._exact.alive[rows]]
            if len(rows):
                self._graph.add(rows, self._exact.vectors(rows))
            went_over = end - self._in_graph
            self._in_graph = end
            return went_over

    def _kill(self, numbers: Numbers) -> None:
        rows = self._rows(numbers)
        if not len(rows):
            return
        self._exact.remove(rows)
        if self._graph is not None:
            self._graph.remove(rows[rows < self._in_graph])
        self._row_of_number[self._number_of_row[rows]] = -1
        self._number_of_row[rows] = -1

    # ---- reads

    def search(self, queries: Sequence[IndexQuery]) -> tuple[list[IndexHits], int]:
        """Answers queries over one state; returns that state's sequence too."""
        with self._lock.reading():
            vectors = [self._query_vector(query) for query in queries]
            choices = [self._choose(query, vector) for query, vector in zip(queries, vectors, strict=True)]
            products = self._products(queries, vectors, choices)
            answers = [
                self._answer(query, vector, choice, products.get(i))
                for i, (query, vector, choice) in enumerate(zip(queries, vectors, choices, strict=True))
            ]
            return answers, self.sequence

    def scores(self, queries: Sequence[IndexQuery], numbers: Numbers) -> NDArray[np.float64]:
        """The score of each item by each query, as `search` gives it, whatever the query's filter.

        Returns:
            Shape (queries, items); NaN where the item or the query has no vector.
        """
        with self._lock.reading():
            rows = self._row_of_each(numbers)
            there = rows >= 0
            out = np.full((len(queries), len(numbers)), np.nan)
            vectors = [self._query_vector(query) for query in queries]
            for scores, vector in zip(out, vectors, strict=True):
                if vector is not None:
                    scores[there] = self._exact.scores(vector, rows[there])
            return out

    def vectors(self, numbers: Numbers) -> Vectors:
        """The transformed vectors of items, zeros for those that have none."""
        with self._lock.reading():
            rows = self._row_of_each(numbers)
            out = np.zeros((len(numbers), self.geometry.dimensions), dtype=np.float32)
            out[rows >= 0] = self._exact.vectors(rows[rows >= 0])
            return out

    def state(self) -> tuple[int, Numbers, Vectors, HnswIndex | None]:
        """What `restore` takes: sequence, the item of each row (-1: dead), the rows, the graph. Views, no copies."""
        return self.sequence, self._number_of_row[: self._exact.rows], self._exact.matrix, self._graph

    def _row_of_each(self, numbers: Numbers) -> Labels:
        """The row of each item, -1 for those that have none."""
        known = (numbers >= 0) & (numbers < len(self._row_of_number))
        rows = np.full(len(numbers), -1, dtype=np.int64)
        rows[known] = self._row_of_number[numbers[known]]
        return rows

    def _rows(self, numbers: Numbers) -> Labels:
        known = numbers[(numbers >= 0) & (numbers < len(self._row_of_number))]
        rows = self._row_of_number[known]
        return rows[rows >= 0]

    def _choose(self, query: IndexQuery, vector: NDArray[np.float32] | None) -> Choice:
        if vector is None:
            return Choice(Plan.EMPTY)
        live = len(self._exact)
        return choose(
            live=live,
            allowed=live if query.allowed is None else min(len(query.allowed), live),
            denied=len(query.denied),
            limit=query.limit,
            has_graph=self._graph is not None,
            exact=query.exact,
        )

    def _products(
        self, queries: Sequence[IndexQuery], vectors: Sequence[NDArray[np.float32] | None], choices: Sequence[Choice]
    ) -> dict[int, NDArray[np.float32]]:
        """Products with every row, for the queries that are compared with most of them: one pass for all."""
        scanning = {
            i: vector
            for i, (query, vector, choice) in enumerate(zip(queries, vectors, choices, strict=True))
            if vector is not None
            and choice.plan is Plan.EXACT
            and (query.allowed is None or self._exact.scans(len(query.allowed)))
        }
        if not scanning:
            return {}
        return dict(zip(scanning, self._exact.products(np.stack(list(scanning.values()))), strict=True))

    def _answer(
        self,
        query: IndexQuery,
        vector: NDArray[np.float32] | None,
        choice: Choice,
        products: NDArray[np.float32] | None,
    ) -> IndexHits:
        if vector is None or choice.plan is Plan.EMPTY:
            zeros = np.zeros(self.geometry.dimensions, np.float32)
            return IndexHits(np.empty(0, np.int64), np.empty(0), Plan.EMPTY, zeros if vector is None else vector)
        plan, rows = choice.plan, None
        if plan is not Plan.EXACT:
            rows = self._graph_rows(vector, query, choice.fetch)
        if rows is None:
            plan, rows = Plan.EXACT, self._exact_rows(vector, query, products)
        scores = self._exact.scores(vector, rows)
        order = np.lexsort((rows, -scores))
        if len(order) > query.limit:
            order = order[scores[order] >= scores[order[query.limit - 1]]]
        return IndexHits(self._number_of_row[rows[order]], scores[order], plan, vector)

    def _query_vector(self, query: IndexQuery) -> NDArray[np.float32] | None:
        if query.vector is not None:
            raw = query.vector[None, :]
            return np.asarray(transform(raw, self.geometry.mean, normalize=self.geometry.normalize)[0])
        numbers = np.asarray([number for number, _ in query.examples], dtype=np.int64)
        weights = np.asarray([weight for _, weight in query.examples], dtype=np.float64)
        known = (numbers >= 0) & (numbers < len(self._row_of_number))
        rows, weights = self._row_of_number[numbers[known]], weights[known]
        rows, weights = rows[rows >= 0], weights[rows >= 0]
        if not len(rows):
            return None
        # Examples are transformed already: only the length of their mean is left to mend.
        mixed = (weights @ self._exact.vectors(rows).astype(np.float64) / np.abs(weights).sum()).astype(np.float32)
        return np.asarray(transform(mixed[None, :], None, normalize=self.geometry.normalize)[0])

    def _exact_rows(
        self, vector: NDArray[np.float32], query: IndexQuery, products: NDArray[np.float32] | None
    ) -> Labels:
        among = None if query.allowed is None else self._rows(np.asarray(query.allowed.to_array(), dtype=np.int64))
        denied = self._rows(np.asarray(query.denied, dtype=np.int64))
        if products is not None:
            return self._exact.pick(products, query.limit, among, denied)
        if len(denied):
            passes = self._exact.alive.copy()
            passes[denied] = False
            among = np.flatnonzero(passes) if among is None else among[passes[among]]
        return self._exact.search(vector, query.limit, among)

    def _graph_rows(self, vector: NDArray[np.float32], query: IndexQuery, fetch: int) -> Labels | None:
        """Hits by the graph and, exactly, among the rows it has not taken in; None: compare exactly instead."""
        assert self._graph is not None
        tail = np.arange(self._in_graph, self._exact.rows, dtype=np.int64)
        if len(tail):
            tail = self._passing(tail[self._exact.alive[tail]], query)
            tail = self._exact.search(vector, query.limit, tail)
        while True:
            try:
                found = self._graph.search(vector, fetch)
            except GraphTooSparseError:
                return None
            kept = self._passing(found, query)
            if len(kept) >= query.limit or len(found) == len(self._graph):
                return np.concatenate([kept, tail])
            fetch *= 3
            if fetch > max_fetch(len(self._exact)):
                return None

    def _passing(self, rows: Labels, query: IndexQuery) -> Labels:
        numbers = self._number_of_row[rows]
        if query.allowed is not None:
            # A test per candidate is cheaper than turning a large bitmap into an array for every query.
            allowed = query.allowed
            passes = np.fromiter((n in allowed for n in numbers.tolist()), dtype=np.bool_, count=len(numbers))
            rows, numbers = rows[passes], numbers[passes]
        return rows[~np.isin(numbers, query.denied)] if query.denied else rows


def _fit(array: Numbers, size: int, fill: int) -> Numbers:
    if size <= len(array):
        return array
    grown = np.full(max(size, len(array) + len(array) // 2), fill, dtype=np.int64)
    grown[: len(array)] = array
    return grown
