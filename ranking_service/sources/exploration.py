"""Items tried out to learn how good they are, drawn evenly from the catalogue. Only when the request asks for it."""

from __future__ import annotations

import random

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.sources.source import Plan
from ranking_service.taste import Taste


class ExplorationSource:
    """A uniform draw; the exploration slots decide where it stands."""

    kind = SourceKind.EXPLORATION
    resolution = 1.0

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def plan(self, taste: Taste) -> Plan:
        """Ids in a random order that the request's seed pins; the score is the chance each had of being drawn."""
        if taste.query.exploration <= 0:
            return Plan()
        shelf = taste.shelf
        drawn = random.Random(taste.query.seed).sample(shelf, min(self._limit, len(shelf)))
        return Plan(proposals=tuple((item.id, len(drawn) / len(shelf)) for item in drawn))

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """None: to be drawn says nothing about being good."""
        return None
