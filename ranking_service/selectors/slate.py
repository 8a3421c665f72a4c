"""A finished list, kept small enough to serve its further pages later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from ranking_service.candidate import Floats, Halves, Ints, Pool, Provenance, SourceKind, best_first
from ranking_service.diversity.knob import diverse_order
from ranking_service.scorers.weighted_sum import Scores
from ranking_service.selectors.exploration_slots import Place, fill_places
from ranking_service.taste import Taste
from zhiyin.common.v1.item_pb2 import Item

# Rough bytes of one candidate beside its vector, and of one item of the history, for the bound of the list store.
_ROW_BYTES = 1_000
_KNOWN_ITEM_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class Versions:
    """What a list was made with."""

    bundle: str = "builtin"
    space_versions: Mapping[str, int] = field(default_factory=dict)
    catalog_sequence: int = 0
    event_sequence: int = 0


@dataclass(frozen=True, slots=True)
class Slate:
    """The candidates that may get a place, best first, with everything needed to order and explain them.

    Attributes:
        taste: For whom.
        items: Length n.
        vectors: FLOAT16 to halve the memory; shape (n, d).
        scores: Relevance and its parts, shape (n,) each.
        provenance: What each source said.
        main: The first `main` rows are ordered by relevance and diversity; the rest was only drawn for exploration.
        drawn: Rows drawn for exploration, in random order.
        max_length: Places of the whole list.
    """

    list_id: str
    taste: Taste
    items: Sequence[Item]
    vectors: Halves
    scores: Scores
    provenance: Mapping[SourceKind, Provenance]
    main: int
    drawn: Ints
    max_length: int
    versions: Versions

    @property
    def size_bytes(self) -> int:
        """About the memory it takes."""
        history = len(self.taste.known_items) * _KNOWN_ITEM_BYTES
        return int(self.vectors.nbytes) + len(self.items) * _ROW_BYTES + history

    def places(self) -> Iterator[Place]:
        """The list, lazily and always the same."""
        query = self.taste.query
        vectors: Floats = self.vectors[: self.main].astype(np.float32)
        order = diverse_order(self.scores.total[: self.main], vectors, query.diversity, query.method)
        explored = self.provenance.get(SourceKind.EXPLORATION)
        chances = explored.scores[self.drawn].tolist() if explored is not None else []
        return islice(fill_places(order, self.drawn.tolist(), chances, query.exploration), self.max_length)


def make_slate(
    list_id: str, taste: Taste, pool: Pool, scores: Scores, max_candidates: int, max_length: int, versions: Versions
) -> Slate:
    """Keeps the best `max_candidates` of a pool, and those drawn for exploration."""
    order = best_first(scores.total, pool.ids)
    best = order[:max_candidates]
    explored = pool.provenance.get(SourceKind.EXPLORATION)
    if explored is None or not explored.ranks.any():
        rows, drawn = best, np.zeros(0, dtype=np.int32)
    else:
        by_draw = np.argsort(explored.ranks, kind="stable")
        drawn_rows = by_draw[explored.ranks[by_draw] > 0]
        rows = np.concatenate([best, np.setdiff1d(drawn_rows, best)]).astype(np.int32)
        position = {int(row): place for place, row in enumerate(rows)}
        drawn = np.array([position[int(row)] for row in drawn_rows], dtype=np.int32)
    kept = pool.take(rows)
    return Slate(
        list_id=list_id,
        # Without its looks at the whole catalogue, which nothing reads any more.
        taste=replace(taste, newest=(), shelf=()),
        items=kept.items,
        vectors=kept.compact,
        scores=scores.take(rows),
        provenance=kept.provenance,
        main=len(best),
        drawn=drawn,
        max_length=max_length,
        versions=versions,
    )
