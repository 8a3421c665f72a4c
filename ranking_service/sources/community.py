"""What is liked in the user's community, and by those the user follows.

The community is that of the user's likes; without likes that of the profile, the anonymous text or a recent search. So
it speaks for somebody who has done nothing yet. Only where a bundle brings communities.
"""

from __future__ import annotations

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.learned_sources.communities import Communities
from ranking_service.sources.source import Plan
from ranking_service.sources.whole_catalog import best_of, scores_of_pool
from ranking_service.taste import Taste

_BEND = 20.0


class CommunitySource:
    """The most liked items of the groups nearest to the user."""

    kind = SourceKind.COMMUNITY
    resolution = 0.1

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def plan(self, taste: Taste) -> Plan:
        """Ids by how much the groups like them."""
        communities = taste.learned.communities
        direction = None if communities is None else _direction(taste, communities)
        if communities is None or direction is None:
            return Plan()
        scores = communities.scores(direction)
        if scores is None or not scores.any():
            return Plan()
        return best_of(taste, scores / scores.max(), communities.item_ids, communities.rows, self._limit)

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """How much they like an item, as a logarithm of the share of the best."""
        scores = scores_of_pool(plan, pool)
        return None if scores is None else np.log1p(_BEND * scores)


def _direction(taste: Taste, communities: Communities) -> Floats | None:
    """Where the user stands: the mean of the likes, else what the profile or a text says."""
    known = [taste.known_items[anchor.item_id] for anchor in taste.likes if anchor.item_id in taste.known_items]
    vectors = [item.vector for item in known if item.vector.shape[0] == communities.centres.shape[1]]
    if vectors:
        mean: Floats = np.mean(vectors, axis=0)
        return mean
    text = taste.profile_vector or taste.query_vector
    if text is None or text.fingerprint != communities.fingerprint:
        return None
    return communities.of_text(text.vector)
