"""What goes together with the user's items in the eyes of all users. Only where a bundle brings an item-item table."""

from __future__ import annotations

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.sources.source import Plan
from ranking_service.sources.whole_catalog import best_of, scores_of_pool
from ranking_service.taste import Taste

_BEND = 5.0


class CollaborativeSource:
    """Items that the user's latest ones speak for."""

    kind = SourceKind.COLLABORATIVE
    resolution = 0.1

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def plan(self, taste: Taste) -> Plan:
        """Ids from the table."""
        table = taste.learned.table
        scores = None if table is None else table.scores([anchor.item_id for anchor in taste.likes])
        if table is None or scores is None or not scores.any():
            return Plan()
        return best_of(taste, scores / scores.max(), table.item_ids, table.rows, self._limit)

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """How much the history speaks for an item, as a logarithm of its share of the best."""
        scores = scores_of_pool(plan, pool)
        return None if scores is None else np.log1p(_BEND * scores)
