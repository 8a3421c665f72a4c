"""Which candidates a list with rules is made of: near-duplicates gone, pinned ones and those of floors kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ranking_service.candidate import Flags, Ints, Pool, SourceKind
from ranking_service.page_token import id_digest
from ranking_service.rules.collapse import alike, duplicates
from ranking_service.rules.place_rules import Floor, PlaceRules, Quota, floors, pinned_anew, quotas
from ranking_service.rules.questions import is_filter, label_of, matching
from ranking_service.rules.rule import Rule, RuleAction
from ranking_service.rules.served_items import NOTHING_SERVED, Served

# Dropped near-duplicates that a list remembers, for whoever asks why.
_MAX_COLLAPSED = 200


@dataclass(frozen=True, slots=True)
class ChosenRows:
    """Rows of a pool that a list is made of.

    Attributes:
        rows: First those of the list's own, best first, then those with a place by a rule or by exploration only.
        main: How many are the list's own.
        drawn: Positions in `rows` of the items drawn for exploration, in their order.
        rules: What rules say about places, in positions of `rows`; None: nothing.
        collapsing: Positions in `rows` of items that a COLLAPSE rule is about.
        collapsed: Ids of the best that a COLLAPSE rule dropped.
    """

    rows: Ints
    main: int
    drawn: Ints
    rules: PlaceRules | None = None
    collapsing: frozenset[int] = frozenset()
    collapsed: Sequence[str] = ()


def choose_rows(
    rules: Sequence[Rule],
    pool: Pool,
    order: Ints,
    drawn: Sequence[int],
    max_candidates: int,
    max_length: int,
    served: Served = NOTHING_SERVED,
) -> ChosenRows:
    """The rows of a list with rules.

    Args:
        rules: In force.
        pool: All candidates.
        order: Its rows, best first.
        drawn: Rows drawn for exploration, in random order.
        max_candidates: So many rows of the list's own at most.
        max_length: Places of the list.
        served: What earlier pages showed.
    """
    served_rows = _served_rows(pool, served)
    pins, had = pinned_anew(rules, pool, order, served_rows, len(served.digests))
    by_rule_only = [*had, *pins.values()]
    gone = _collapsed(rules, pool, order, by_rule_only, served_rows, served)
    own = _proposed(pool) & ~gone
    own[by_rule_only] = False
    main = order[own[order]][:max_candidates]
    of_floors = floors(rules, pool)
    reserve = _reserve(of_floors, order, ~gone, {*main.tolist(), *by_rule_only}, max_length)
    kept_drawn = [row for row in drawn if not gone[row] and row not in by_rule_only]
    rows = list(dict.fromkeys([*main.tolist(), *pins.values(), *reserve, *kept_drawn, *sorted(served_rows)]))
    position = {row: place for place, row in enumerate(rows)}
    chosen = np.array(rows, dtype=np.int32)
    of_quotas = quotas(rules, pool)
    place_rules = None
    if pins or of_floors or of_quotas:
        place_rules = PlaceRules(
            {place: position[row] for place, row in pins.items()},
            [Floor(floor.share, floor.matches[chosen]) for floor in of_floors],
            [Quota(quota.max_places, quota.window, quota.groups[chosen]) for quota in of_quotas],
            [position[row] for row in reserve],
        )
    collapsing = np.zeros(len(pool), dtype=bool)
    for rule in rules:
        if rule.action is RuleAction.COLLAPSE:
            collapsing |= matching(pool, rule)
    return ChosenRows(
        chosen,
        len(main),
        np.array([position[row] for row in kept_drawn], np.int32),
        place_rules,
        frozenset(np.flatnonzero(collapsing[chosen]).tolist()),
        [pool.ids[row] for row in order[gone[order]][:_MAX_COLLAPSED].tolist()],
    )


def _served_rows(pool: Pool, served: Served) -> set[int]:
    digests = set(served.digests)
    return {row for row, item_id in enumerate(pool.ids) if id_digest(item_id) in digests} if digests else set()


def _collapsed(
    rules: Sequence[Rule], pool: Pool, order: Ints, pins: Sequence[int], served_rows: set[int], served: Served
) -> Flags:
    """Rows that a COLLAPSE rule drops; what was pinned or served stays."""
    wanted = [rule for rule in rules if rule.action is RuleAction.COLLAPSE]
    if not wanted or len(pool) == 0:
        return np.zeros(len(pool), dtype=bool)
    gone = np.zeros(len(pool), dtype=bool)
    for rule in wanted if served.vectors.shape[1] == pool.vectors.shape[1] else ():
        shown = (
            served.labels.get(label_of(rule.filter)) if is_filter(rule.filter) else np.ones(len(served.vectors), bool)
        )
        rows = np.flatnonzero(matching(pool, rule))
        if shown is not None and shown.any() and len(rows):
            gone[rows] |= alike(pool.vectors[rows], served.vectors[shown], rule.similarity).any(axis=1)
    first = [*pins, *(row for row in sorted(served_rows) if row not in pins)]
    gone[first] = False
    return duplicates(
        order, pool.vectors, [(matching(pool, rule), rule.similarity) for rule in wanted], first=first, gone=gone
    )


def _proposed(pool: Pool) -> Flags:
    """Candidates that a source proposed: what only a rule brought in stands where a rule puts it, nowhere else."""
    proposed = np.zeros(len(pool), dtype=bool)
    for kind, said in pool.provenance.items():
        if kind is not SourceKind.RULE:
            proposed |= said.ranks > 0
    return proposed


def _reserve(of_floors: Sequence[Floor], order: Ints, open_rows: Flags, taken: set[int], max_length: int) -> list[int]:
    """As many of the best matching rows beyond the list's own as the floors may need."""
    found: set[int] = set()
    for floor in of_floors:
        best = order[(floor.matches & open_rows)[order]]
        found.update([row for row in best.tolist() if row not in taken][: math.ceil(floor.share * max_length)])
    return [row for row in order.tolist() if row in found]
