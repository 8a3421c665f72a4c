"""Answers a Search over one state of a catalogue. Blocking; runs in a thread of the service.

filters and ids (directory) -> vectors (index worker) -> ids, ties, limits -> items (cache, then store)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval_service import metrics
from retrieval_service.catalog_registry import CatalogState
from retrieval_service.directory import Directory
from retrieval_service.filters import Filter
from retrieval_service.index_host import IndexHost
from retrieval_service.index_messages import HostHits, HostQuery
from retrieval_service.item_cache import Hidden, MakeView
from retrieval_service.item_store import ItemStore
from retrieval_service.search_plan import Plan
from retrieval_service.vector_rows import SpaceRow
from service_runtime.errors import InvalidRequest, SpaceMismatch, Violation


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """One query of a Search, its text already encoded.

    Attributes:
        name: The caller's.
        limit: Hits wanted.
        vector: Raw, shape (dimensions,); None for a query by examples.
        fingerprint: Of the vector's space; empty: the caller vouches for it.
        examples: Item ids and weights.
        condition: Holds for this query; None: none of its own.
        exact: Compare with every item.
    """

    name: str
    limit: int
    vector: NDArray[np.float32] | None = None
    fingerprint: str = ""
    examples: tuple[tuple[str, float], ...] = ()
    condition: Filter | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class SearchInput:
    """A checked Search."""

    queries: tuple[VectorQuery, ...]
    condition: Filter | None = None
    hydrate: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    include_unavailable: bool = False
    with_vectors: bool = False
    hidden: Hidden = ()


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The hits of one query: positions among the items, and scores, best first."""

    name: str
    positions: list[int]
    scores: list[float]
    plan: Plan
    missing: list[str]


@dataclass(frozen=True, slots=True)
class SearchOutput:
    """The answer; `items` as the answer shows them, each once. Vectors are FLOAT16 and None unless asked for."""

    items: list[bytes]
    results: list[QueryResult]
    hydrated: list[int]
    missing: list[str]
    filtered: list[str]
    item_vectors: NDArray[np.float16] | None
    query_vectors: NDArray[np.float16] | None
    sequence: int


class Searcher:
    """Searches catalogues. Safe for threads.

    Args:
        store: For items that are not in memory.
        host: The indexes.
        view: A stored item as the answer shows it.
    """

    def __init__(self, store: ItemStore, host: IndexHost, view: MakeView) -> None:
        self._store, self._host, self._view = store, host, view

    def run(self, state: CatalogState, search: SearchInput, timeout_s: float) -> SearchOutput:
        """Answers a Search.

        Raises:
            SpaceMismatch: A vector is of another space than the catalogue's.
            InvalidRequest: A vector has other dimensions, or a filter does not fit its field.
            DependencyUnavailable: The index worker did not answer in time.
        """
        started = time.monotonic()
        space = state.space  # once: a first write may set it meanwhile
        _check_space(space, search.queries)
        directory = state.directory
        selection = directory.select(
            [query.condition for query in search.queries],
            common=search.condition,
            include_unavailable=search.include_unavailable,
            hydrate=search.hydrate,
            exclude=search.exclude,
            examples=[[item_id for item_id, _ in query.examples] for query in search.queries],
        )
        asked: list[tuple[int, HostQuery]] = []
        missing: list[list[str]] = []
        for i, query in enumerate(search.queries):
            known = selection.examples[i]
            pairs = [(n, w) for n, (_, w) in zip(known, query.examples, strict=True) if n is not None]
            missing.append([item_id for n, (item_id, _) in zip(known, query.examples, strict=True) if n is None])
            if query.vector is not None or pairs:
                denied = [*selection.denied, *(n for n, _ in pairs)]
                host_query = HostQuery(query.limit, query.vector, pairs, selection.allowed[i], denied, query.exact)
                asked.append((i, host_query))
        answers: dict[int, HostHits] = {}
        if asked and space is not None:
            found = self._host.search(state.row.catalog_id, [query for _, query in asked], timeout_s)
            if found is not None:
                answers = dict(zip((i for i, _ in asked), found[0], strict=True))
        ranked = [
            _rank(directory, answers[i], query.limit) if i in answers else [] for i, query in enumerate(search.queries)
        ]
        wanted = dict(selection.numbers)
        wanted.update((item_id, number) for hits in ranked for item_id, number, _ in hits)
        items = self._items(state, wanted, search.hidden)
        position = {item_id: i for i, item_id in enumerate(items)}
        results = [
            QueryResult(
                query.name,
                [position[item_id] for item_id, _, _ in hits if item_id in position],
                [score for item_id, _, score in hits if item_id in position],
                answers[i].plan if i in answers else Plan.EMPTY,
                missing[i],
            )
            for i, (query, hits) in enumerate(zip(search.queries, ranked, strict=True))
        ]
        for result in results:
            metrics.SEARCHES.labels(result.plan.name.lower()).inc()
        item_vectors = query_vectors = None
        if search.with_vectors:
            left = timeout_s - (time.monotonic() - started)
            item_vectors, query_vectors = self._vectors(
                state.row.catalog_id, space, [wanted[i] for i in items], answers, len(results), left
            )
        metrics.SEARCH_SECONDS.observe(time.monotonic() - started)
        return SearchOutput(
            items=list(items.values()),
            results=results,
            hydrated=[position[item_id] for item_id in selection.numbers if item_id in position],
            missing=selection.missing,
            filtered=selection.filtered,
            item_vectors=item_vectors,
            query_vectors=query_vectors,
            sequence=selection.sequence,
        )

    def _items(self, state: CatalogState, wanted: dict[str, int], hidden: Hidden) -> dict[str, bytes]:
        """Items by id, in the order given. One that was deleted a moment ago is left out."""
        views = state.directory.views(list(wanted.values()), hidden, self._view)
        found = dict(zip(wanted, views, strict=True))
        absent = [item_id for item_id, view in found.items() if view is None]
        if absent:
            with self._store.reading() as connection:
                rows = self._store.items(connection, state.row.catalog_id, absent)
            for item_id, row in rows.items():
                found[item_id] = self._view(row.payload, hidden)
                state.directory.keep(row.number, row.sequence, row.payload)
        return {item_id: view for item_id, view in found.items() if view is not None}

    def _vectors(
        self,
        catalog_id: int,
        space: SpaceRow | None,
        numbers: list[int],
        answers: dict[int, HostHits],
        queries: int,
        timeout_s: float,
    ) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        dimensions = space.dimensions if space is not None else 0
        items = None
        if numbers and space is not None:
            items = self._host.vectors(catalog_id, numbers, max(timeout_s, 0.001))
        if items is None:
            items = np.zeros((len(numbers), dimensions), dtype=np.float16)
        rows = np.zeros((queries, dimensions), dtype=np.float16)
        for i, hits in answers.items():
            rows[i] = hits.vector.astype(np.float16)
        return items, rows


def _rank(directory: Directory, hits: HostHits, limit: int) -> list[tuple[str, int, float]]:
    """Id, number and score, best first, equal scores by id. Items not (yet) in the directory are left out."""
    scores = np.asarray(hits.scores, dtype=np.float32).tolist()  # as the caller sees them: ties must be ties there
    known = [
        (item_id, number, score)
        for item_id, number, score in zip(directory.ids(hits.numbers), hits.numbers, scores, strict=True)
        if item_id is not None
    ]
    known.sort(key=lambda hit: (-hit[2], hit[0]))
    return known[:limit]


def _check_space(space: SpaceRow | None, queries: Sequence[VectorQuery]) -> None:
    if space is None:
        return
    violations = []
    for i, query in enumerate(queries):
        if query.vector is None:
            continue
        if query.fingerprint and query.fingerprint != space.fingerprint:
            raise SpaceMismatch(expected=space.fingerprint, actual=query.fingerprint)
        if len(query.vector) != space.dimensions:
            violations.append(
                Violation(
                    f"queries[{i}].vector.dimensions", f"is {len(query.vector)}; the space has {space.dimensions}"
                )
            )
    if violations:
        raise InvalidRequest(violations)
