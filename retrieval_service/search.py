"""Answers a Search over one state of a catalogue. Blocking; runs in a thread of the service.

filters and ids (directory) -> vectors (index worker) -> ids, ties, limits -> items (cache, then store)
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from retrieval_service import metrics
from retrieval_service.catalog_registry import CatalogState
from retrieval_service.directory import Directory, Label
from retrieval_service.filters import Filter
from retrieval_service.index_host import IndexHost
from retrieval_service.index_messages import HostHits, HostQuery
from retrieval_service.item_cache import Hidden, MakeView
from retrieval_service.item_store import ItemStore
from retrieval_service.named_spaces import SEMANTIC, IndexKey
from retrieval_service.search_plan import Plan
from retrieval_service.searched_spaces import SearchedSpace, checked_vectors, resolve
from service_runtime.errors import NotReady


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """One query of a Search, its text already encoded.

    Attributes:
        name: The caller's.
        limit: Hits wanted.
        vector: Raw, shape (dimensions,), of length 1 in the semantic space; None for a query by examples.
        fingerprint: Of the vector's space; empty: the caller vouches for it.
        examples: Item ids and weights.
        condition: Holds for this query; None: none of its own.
        exact: Compare with every item.
        space: The space it is asked in.
        score_all: Also score every item of the answer.
    """

    name: str
    limit: int
    vector: NDArray[np.float32] | None = None
    fingerprint: str = ""
    examples: tuple[tuple[str, float], ...] = ()
    condition: Filter | None = None
    exact: bool = False
    space: str = SEMANTIC
    score_all: bool = False


@dataclass(frozen=True, slots=True)
class SearchInput:
    """A checked Search.

    Attributes:
        queries: At most a few dozen.
        condition: Holds for all of them.
        hydrate: Ids found elsewhere.
        exclude: Ids that must not come back.
        include_unavailable: Whether hidden items come back.
        vectors_space: Whose vectors the answer has; empty: none.
        versions: The version asked for of each space that is asked for; 0: the published one.
        hidden: Fields that the answer leaves out.
        labels: Which items carry them is said of every item of the answer.
    """

    queries: tuple[VectorQuery, ...]
    condition: Filter | None = None
    hydrate: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    include_unavailable: bool = False
    vectors_space: str = ""
    versions: Mapping[str, int] = field(default_factory=lambda: {SEMANTIC: 0})
    hidden: Hidden = ()
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The hits of one query: positions among the items, and scores, best first."""

    name: str
    positions: list[int]
    scores: list[float]
    plan: Plan
    missing: list[str]
    all_scores: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class LabelResult:
    """Positions of the items that carry a label, rising, and of those that it brought, best first."""

    name: str
    positions: list[int]
    added: list[int]


@dataclass(frozen=True, slots=True)
class SearchOutput:
    """The answer; `items` as the answer shows them, each once. Vectors are FLOAT16 and None unless asked for.

    `spaces` are those that were asked for. `all_scores` of a query are one an item, NaN for one without a vector.
    """

    items: list[bytes]
    results: list[QueryResult]
    hydrated: list[int]
    missing: list[str]
    filtered: list[str]
    item_vectors: NDArray[np.float16] | None
    query_vectors: NDArray[np.float16] | None
    sequence: int
    spaces: dict[str, SearchedSpace | None]
    labels: list[LabelResult]


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
            NotFound: There is no such space or version.
            FailedPrecondition: A space has no published version and none is named.
            SpaceMismatch: A vector is of another space than it is compared in.
            InvalidRequest: A vector has other dimensions, or a filter does not fit its field.
            NotReady: A version is being loaded.
            DependencyUnavailable: The index worker did not answer in time.
        """
        started = time.monotonic()

        def left() -> float:
            return max(timeout_s - (time.monotonic() - started), 0.001)

        spaces = resolve(state, search.versions)
        vectors = checked_vectors(search.queries, spaces)
        directory = state.directory
        selection = directory.select(
            [query.condition for query in search.queries],
            common=search.condition,
            include_unavailable=search.include_unavailable,
            hydrate=search.hydrate,
            exclude=search.exclude,
            examples=[[item_id for item_id, _ in query.examples] for query in search.queries],
            labels=search.labels,
        )
        asked: dict[str, dict[int, HostQuery]] = {}
        missing: list[list[str]] = []
        for i, (query, vector) in enumerate(zip(search.queries, vectors, strict=True)):
            known = selection.examples[i]
            pairs = [(n, w) for n, (_, w) in zip(known, query.examples, strict=True) if n is not None]
            missing.append([item_id for n, (item_id, _) in zip(known, query.examples, strict=True) if n is None])
            if (vector is not None or pairs) and spaces[query.space] is not None:
                denied = [*selection.denied, *(n for n, _ in pairs)]
                host_query = HostQuery(query.limit, vector, pairs, selection.allowed[i], denied, query.exact)
                asked.setdefault(query.space, {})[i] = host_query
        answers: dict[int, HostHits] = {}
        for name, own in asked.items():
            found = self._host.search(_key(spaces, name), list(own.values()), left())
            if found is not None:
                answers.update(zip(own, found[0], strict=True))
            elif name != SEMANTIC:
                raise NotReady(f"the asked version of space {name!r} is being loaded")
        ranked = [
            _rank(directory, answers[i], query.limit) if i in answers else [] for i, query in enumerate(search.queries)
        ]
        wanted = dict(selection.numbers)
        wanted.update((item_id, number) for hits in ranked for item_id, number, _ in hits)
        added = [{i: n for i, n in best.items() if i not in wanted} for best in selection.added]
        for extra in added:
            wanted.update(extra)
        items = self._items(state, wanted, search.hidden)
        position = {item_id: i for i, item_id in enumerate(items)}
        numbers = [wanted[item_id] for item_id in items]
        labels = []
        if search.labels:
            carriers = directory.labelled(search.labels, numbers)
            labels = [
                LabelResult(label.name, carrying, [position[item_id] for item_id in extra if item_id in position])
                for label, carrying, extra in zip(search.labels, carriers, added, strict=True)
            ]
        all_scores = self._all_scores(search.queries, spaces, asked, numbers, left)
        results = [
            QueryResult(
                query.name,
                [position[item_id] for item_id, _, _ in hits if item_id in position],
                [score for item_id, _, score in hits if item_id in position],
                answers[i].plan if i in answers else Plan.EMPTY,
                missing[i],
                all_scores.get(i),
            )
            for i, (query, hits) in enumerate(zip(search.queries, ranked, strict=True))
        ]
        for result in results:
            metrics.SEARCHES.labels(result.plan.name.lower()).inc()
        item_vectors = query_vectors = None
        if search.vectors_space:
            of_space = [query.space == search.vectors_space for query in search.queries]
            shown = {i: hits for i, hits in answers.items() if of_space[i]}
            space = spaces[search.vectors_space]
            item_vectors, query_vectors = self._vectors(space, numbers, shown, len(results), left())
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
            spaces=spaces,
            labels=labels,
        )

    def _all_scores(
        self,
        queries: Sequence[VectorQuery],
        spaces: Mapping[str, SearchedSpace | None],
        asked: Mapping[str, Mapping[int, HostQuery]],
        numbers: list[int],
        left: Callable[[], float],
    ) -> dict[int, NDArray[np.float64]]:
        """Scores of every item of the answer by the queries that want them; NaN where there is none."""
        wanting = {i: query.space for i, query in enumerate(queries) if query.score_all}
        found = {i: np.full(len(numbers), np.nan) for i in wanting}
        for name in dict.fromkeys(wanting.values()):
            # Whatever a query may find, it scores all.
            own = {
                i: dataclasses.replace(query, allowed=None, denied=())
                for i, query in asked.get(name, {}).items()
                if i in wanting
            }
            if own and numbers:
                scores = self._host.scores(_key(spaces, name), list(own.values()), numbers, left())
                if scores is not None:
                    found.update(zip(own, scores, strict=True))
        return found

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
        space: SearchedSpace | None,
        numbers: list[int],
        answers: Mapping[int, HostHits],
        queries: int,
        timeout_s: float,
    ) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        dimensions = space.dimensions if space is not None else 0
        items = None
        if numbers and space is not None:
            items = self._host.vectors(space.key, numbers, timeout_s)
        if items is None:
            items = np.zeros((len(numbers), dimensions), dtype=np.float16)
        rows = np.zeros((queries, dimensions), dtype=np.float16)
        for i, hits in answers.items():
            rows[i] = hits.vector.astype(np.float16)
        return items, rows


def _key(spaces: Mapping[str, SearchedSpace | None], name: str) -> IndexKey:
    space = spaces[name]
    assert space is not None, "nothing is asked in a space without vectors"
    return space.key


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
