"""New in the catalogue: for somebody with a taste the new items nearest to it, for nobody in particular the newest.

The nearest new items come from a query of the one search, filtered by `created_at`: an item is found as soon as its
upsert is acknowledged. The newest come from a list that is read again every few seconds, since a search has no order
by time.
"""

from __future__ import annotations

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.sources.source import Ask, Plan
from ranking_service.taste import Taste
from ranking_service.vector_cache import TextVector

_EXAMPLES = 8


class FreshSource:
    """Items created within the window."""

    kind = SourceKind.FRESH
    # A single new item among old ones must not look like a sensation.
    resolution = 0.3

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit, self._window_s = limit, window_s

    def plan(self, taste: Taste) -> Plan:
        """One query filtered by age, or the newest ids."""
        since = taste.query.now - self._window_s
        like = _direction(taste)
        if like is not None:
            return Plan(asks=(Ask("fresh", like, self._limit, created_since=since),))
        newest = [item for item in taste.newest if item.created_at >= since]
        return Plan(proposals=tuple((item.id, item.created_at) for item in newest[: self._limit]))

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """1 for an item of this moment, falling by half every fifth of the window, 0 beyond it."""
        age = np.maximum(taste.query.now - pool.created, 0.0)
        return np.where(age < self._window_s, 0.5 ** (5.0 * age / self._window_s), 0.0).astype(np.float32)


def _direction(taste: Taste) -> TextVector | tuple[tuple[str, float], ...] | None:
    if taste.query_vector is not None:
        return taste.query_vector
    if taste.likes:
        heaviest = max(anchor.weight for anchor in taste.likes)
        examples = [(anchor.item_id, anchor.weight / heaviest) for anchor in taste.likes[:_EXAMPLES]]
        return tuple((item_id, weight) for item_id, weight in examples if weight > 1e-6)
    return taste.profile_vector
