"""Like the items of a shelf."""

from __future__ import annotations

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.sources.source import Ask, Plan
from ranking_service.taste import Taste

SIMILAR_ASK = "similar"


class SimilarSource:
    """Nearest items to the given ones, all counting the same."""

    kind = SourceKind.SIMILAR
    resolution = 0.02

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def plan(self, taste: Taste) -> Plan:
        """One query by examples."""
        if not taste.likes:
            return Plan()
        return Plan(asks=(Ask(SIMILAR_ASK, tuple((anchor.item_id, 1.0) for anchor in taste.likes), self._limit),))

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """Similarity to the mean of the given items."""
        return pool.similarity(SIMILAR_ASK) if plan.asks else None
