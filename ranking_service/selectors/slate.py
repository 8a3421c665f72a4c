"""A finished list, kept small enough to serve its further pages later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from ranking_service.candidate import Floats, Halves, Ints, Pool, Provenance, SourceKind, best_first
from ranking_service.diversity.knob import diverse_order
from ranking_service.diversity.likeness import with_categories
from ranking_service.rules.place_rules import PlaceRules
from ranking_service.rules.served_items import NOTHING_SERVED, Served
from ranking_service.scorers.weighted_sum import Scores
from ranking_service.selectors.exploration_slots import Place, fill_places
from ranking_service.selectors.ruled_places import ruled_places
from ranking_service.selectors.ruled_rows import ChosenRows, choose_rows
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
        main: The first `main` rows are ordered by relevance and diversity; the rest has a place by exploration or by a
            rule only.
        drawn: Rows drawn for exploration, in random order.
        max_length: Places of the whole list.
        rules: What rules say about places; None: nothing.
        collapsing: Rows that a COLLAPSE rule is about.
        collapsed: Ids of the best items that such a rule dropped.
        after: What earlier pages had shown when it was made anew.
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
    rules: PlaceRules | None = None
    collapsing: frozenset[int] = frozenset()
    collapsed: Sequence[str] = ()
    after: Served = NOTHING_SERVED

    @property
    def size_bytes(self) -> int:
        """About the memory it takes."""
        history = len(self.taste.known_items) * _KNOWN_ITEM_BYTES
        return int(self.vectors.nbytes) + len(self.items) * _ROW_BYTES + history

    def likeness(self) -> Floats:
        """Vectors of the list's own rows, by which they are alike, shape (main, d)."""
        return with_categories(self.vectors[: self.main], [item.categories[:] for item in self.items[: self.main]])

    def places(self, before: Sequence[int] = (), gone: Set[int] = frozenset()) -> Iterator[Place]:
        """The list, lazily and always the same.

        Args:
            before: Of a list with rules about places: rows of the places so far, which are not given again; -1 where
                the item is not known any more.
            gone: Likewise: rows that must not be shown.
        """
        query = self.taste.query
        scores, vectors = self.scores.total[: self.main], self.likeness()
        order = diverse_order(scores, vectors, query.diversity, query.method, self.taste.knob)
        explored = self.provenance.get(SourceKind.EXPLORATION)
        chances = explored.scores[self.drawn].tolist() if explored is not None else []
        drawn, share = self.drawn.tolist(), query.exploration
        if self.rules is None:
            return islice(fill_places(order, drawn, chances, share), self.max_length)
        rows = len(self.items)
        return ruled_places(order, self.rules, drawn, chances, share, rows, self.main, self.max_length, before, gone)


def make_slate(
    list_id: str,
    taste: Taste,
    pool: Pool,
    scores: Scores,
    max_candidates: int,
    max_length: int,
    versions: Versions,
    served: Served = NOTHING_SERVED,
) -> Slate:
    """Keeps the best `max_candidates` of a pool, those drawn for exploration, and those that rules put somewhere.

    Args:
        served: What earlier pages showed, of a list with rules that is made anew.
    """
    order = best_first(scores.total, pool.ids)
    drawn = _drawn_rows(pool)
    if taste.query.rules:
        chosen = choose_rows(taste.query.rules, pool, order, drawn.tolist(), max_candidates, max_length, served)
    else:
        chosen = _best_and_drawn(order[:max_candidates], drawn)
    return Slate(
        list_id=list_id,
        # Without its looks at the whole catalogue, which nothing reads any more.
        taste=replace(taste, newest=(), shelf=()),
        items=[pool.items[row] for row in chosen.rows.tolist()],
        vectors=pool.compact[chosen.rows],
        scores=scores.take(chosen.rows),
        provenance={kind: said.take(chosen.rows) for kind, said in pool.provenance.items()},
        main=chosen.main,
        drawn=chosen.drawn,
        max_length=max_length,
        versions=versions,
        rules=chosen.rules,
        collapsing=chosen.collapsing,
        collapsed=chosen.collapsed,
        after=served,
    )


def _drawn_rows(pool: Pool) -> Ints:
    explored = pool.provenance.get(SourceKind.EXPLORATION)
    if explored is None or not explored.ranks.any():
        return np.zeros(0, dtype=np.int32)
    by_draw = np.argsort(explored.ranks, kind="stable").astype(np.int32)
    return by_draw[explored.ranks[by_draw] > 0]


def _best_and_drawn(best: Ints, drawn: Ints) -> ChosenRows:
    if not len(drawn):
        return ChosenRows(best, len(best), drawn)
    rows = np.concatenate([best, np.setdiff1d(drawn, best)]).astype(np.int32)
    position = {int(row): place for place, row in enumerate(rows)}
    return ChosenRows(rows, len(best), np.array([position[int(row)] for row in drawn], dtype=np.int32))
