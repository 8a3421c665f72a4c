"""Like what the user says of themselves."""

from __future__ import annotations

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.sources.source import Ask, Plan
from ranking_service.taste import Taste

PROFILE_ASK = "profile"


class ProfileSource:
    """Nearest items to the profile text."""

    kind = SourceKind.PROFILE
    resolution = 0.02

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def plan(self, taste: Taste) -> Plan:
        """One vector query."""
        if taste.profile_vector is None:
            return Plan()
        return Plan(asks=(Ask(PROFILE_ASK, taste.profile_vector, self._limit),))

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """Similarity to the text."""
        return pool.similarity(PROFILE_ASK) if plan.asks else None
