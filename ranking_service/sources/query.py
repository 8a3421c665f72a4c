"""Like what the user is looking for: the text of the request, else the latest search of the last day."""

from __future__ import annotations

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.sources.source import Ask, Plan
from ranking_service.taste import Taste

QUERY_ASK = "query"


class QuerySource:
    """Nearest items to the query text."""

    kind = SourceKind.QUERY
    resolution = 0.02

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def plan(self, taste: Taste) -> Plan:
        """One vector query."""
        if taste.query_vector is None:
            return Plan()
        return Plan(asks=(Ask(QUERY_ASK, taste.query_vector, self._limit),))

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """Similarity to the text."""
        return pool.similarity(QUERY_ASK) if plan.asks else None
