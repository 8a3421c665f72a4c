"""The whole catalogue, evenly: for nobody in particular, when little else is known.

Without events and without a taste a person still expects a shop window: the best of each category by the caller's own
prior, the categories taking turns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.sources.source import Plan
from ranking_service.taste import ScoutedItem, Taste


class CatalogSource:
    """A sample of the catalogue, categories taking turns."""

    kind = SourceKind.CATALOG
    resolution = 0.05

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def plan(self, taste: Taste) -> Plan:
        """Ids, for those without a taste only."""
        if taste.is_personal:
            return Plan()
        window = take_turns(taste.shelf)[: self._limit]
        return Plan(proposals=tuple((item.id, 1.0 - place / len(window)) for place, item in enumerate(window)))

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """The place in the window: 1 for the first, 0 for items outside of it."""
        provenance = pool.provenance.get(self.kind)
        return provenance.scores.astype(np.float32) if provenance is not None and provenance.ranks.any() else None


def take_turns(items: Sequence[ScoutedItem]) -> list[ScoutedItem]:
    """Best prior first, but the k-th item of a category never before the (k-1)-th of another that has one."""
    turns: dict[str, int] = defaultdict(int)
    placed = []
    for item in sorted(items, key=lambda item: (-item.prior, item.tie)):
        placed.append((turns[item.category], -item.prior, item.tie, item))
        turns[item.category] += 1
    return [entry[3] for entry in sorted(placed, key=lambda entry: entry[:3])]
