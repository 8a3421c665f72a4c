"""Near to the user in a factorisation of who chose what. Only where a bundle brings one."""

from __future__ import annotations

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.sources.source import Plan
from ranking_service.sources.whole_catalog import best_of, scores_of_pool
from ranking_service.taste import Taste

_BEND = 5.0


class FactorsSource:
    """Items with the largest inner product with the user's factors, which are made of the events of this second."""

    kind = SourceKind.FACTORS
    resolution = 0.1

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def plan(self, taste: Taste) -> Plan:
        """Ids by inner product."""
        model = taste.learned.factors
        scores = None if model is None else model.scores([anchor.item_id for anchor in taste.likes])
        if model is None or scores is None or scores.max() <= 0:
            return Plan()
        return best_of(taste, scores / scores.max(), model.item_ids, model.rows, self._limit)

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """The inner product where it is above 0, as a logarithm of its share of the best."""
        scores = scores_of_pool(plan, pool)
        return None if scores is None else np.log1p(_BEND * np.maximum(scores, 0.0))
