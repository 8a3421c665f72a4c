"""What users alike chose. Live, where a bundle says that it helps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.filters.filters import dropped_among
from ranking_service.sources.source import Plan
from ranking_service.sources.whole_catalog import scores_of_pool
from ranking_service.taste import Taste
from ranking_service.users.user_state import Statistics

# The user's latest items that neighbours are found by.
_ITEMS = 8
# Items that the neighbours' opinion is known of; of the others they are taken to have none.
_KNOWN = 300
_BEND = 5.0


class NeighboursSource:
    """Items that many of the most similar users chose."""

    kind = SourceKind.NEIGHBOURS
    resolution = 0.1

    def __init__(self, statistics: Statistics, limit: int) -> None:
        self._statistics, self._limit = statistics, limit

    def plan(self, taste: Taste) -> Plan:
        """Ids from the statistics, with shares of the best."""
        decay = taste.learned.neighbours_decay
        if decay is None or not taste.likes:
            return Plan()
        weights = {anchor.item_id: decay**place for place, anchor in enumerate(taste.likes[:_ITEMS])}
        found = self._statistics.liked_by_neighbours(taste.query.catalog, weights, taste.state.key, _KNOWN)
        if not found:
            return Plan()
        best = found[0][1]
        known = {item_id: score / best for item_id, score in found}
        gone = dropped_among(known, taste)
        shown = [pair for pair in known.items() if pair[0] not in gone][: self._limit]

        def score_of(ids: Sequence[str]) -> Floats:
            return np.array([known.get(item_id, 0.0) for item_id in ids], np.float32)

        return Plan(proposals=tuple(shown), score_of=score_of)

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """How many of them, by likeness, as a logarithm of the share of the best."""
        scores = scores_of_pool(plan, pool)
        return None if scores is None else np.log1p(_BEND * scores)
