"""What others did after the user's recent items."""

from __future__ import annotations

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.filters.filters import dropped_among, dropped_ids
from ranking_service.sources.source import Plan
from ranking_service.taste import Taste
from ranking_service.users.user_state import Statistics

# Weight of the user's items by their place, latest first; measured best for next-item prediction.
_DECAY_PER_PLACE = 0.6
_ITEMS = 12
_BEND = 5.0
# More than this that the user is done with are not looked past.
_LOOKED_PAST = 300


class TransitionSource:
    """Items that followed the user's latest ones in other users' sessions."""

    kind = SourceKind.TRANSITION
    # Wide, so that scores with little support stay small instead of being stretched over the pool.
    resolution = 0.5

    def __init__(self, statistics: Statistics, limit: int) -> None:
        self._statistics, self._limit = statistics, limit

    def plan(self, taste: Taste) -> Plan:
        """Ids from the statistics, with scores between 0 and 1 in which the support is counted."""
        if not taste.likes:
            return Plan()
        weights = {anchor.item_id: _DECAY_PER_PLACE**place for place, anchor in enumerate(taste.likes[:_ITEMS])}
        wanted = self._limit + min(sum(map(len, dropped_ids(taste))), _LOOKED_PAST)
        found = self._statistics.transitions(taste.query.catalog, weights, wanted)
        gone = dropped_among((item_id for item_id, _ in found), taste)
        shown = [pair for pair in found if pair[0] not in gone]
        return Plan(proposals=tuple(shown[: self._limit]))

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """How often, as a logarithm: the tenth follower is a good one too."""
        said = pool.provenance.get(self.kind)
        return None if said is None or not said.ranks.any() else np.log1p(_BEND * said.scores).astype(np.float32)
