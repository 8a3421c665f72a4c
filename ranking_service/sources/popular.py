"""What many act on lately."""

from __future__ import annotations

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.sources.source import Plan
from ranking_service.taste import Taste
from ranking_service.users.user_state import Statistics

# An item with a twentieth of the events of the most popular one lies about a quarter of the way up.
_BEND = 20.0


class PopularSource:
    """The most popular items, older interactions counting less."""

    kind = SourceKind.POPULAR
    resolution = 1e-3

    def __init__(self, statistics: Statistics, limit: int) -> None:
        self._statistics, self._limit = statistics, limit

    def plan(self, taste: Taste) -> Plan:
        """Ids from the statistics; more of them where little else is known."""
        limit = self._limit if taste.is_personal else 3 * self._limit
        return Plan(proposals=tuple(self._statistics.popular(taste.query.catalog, taste.query.now, limit)))

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """How popular, as a logarithm: counts are skewed, and the second of a thousand is as good as the first.

        Of shares of the best, because decayed counts may be of any magnitude, beyond what single precision holds.
        """
        said = pool.provenance.get(self.kind)
        if said is None or not said.ranks.any():
            return None
        scores = np.maximum(np.nan_to_num(said.scores), 0.0)
        shares = scores / max(float(scores.max()), 1e-300)
        return np.log1p(_BEND * shares).astype(np.float32)
