"""What is liked in the user's community, and by those the user follows.

The community is that of the user's likes; without likes that of the profile, the anonymous text or a recent search. So
it speaks for somebody who has done nothing yet. Communities come with a bundle; what the followed like needs none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.filters.filters import dropped_among
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
        """Ids by how much the groups and the followed like them."""
        crowd = self._crowd(taste)
        return crowd if not taste.followed else self._with_followed(taste, crowd)

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """How much they like an item, as a logarithm of the share of the best."""
        scores = scores_of_pool(plan, pool)
        return None if scores is None else np.log1p(_BEND * scores)

    def _crowd(self, taste: Taste) -> Plan:
        communities = taste.learned.communities
        direction = None if communities is None else _direction(taste, communities)
        if communities is None or direction is None:
            return Plan()
        scores = communities.scores(direction)
        if scores is None or not scores.any():
            return Plan()
        return best_of(taste, scores / scores.max(), communities.item_ids, communities.rows, self._limit)

    def _with_followed(self, taste: Taste, crowd: Plan) -> Plan:
        """What the followed like counts as much as what the groups like, both as shares of the best."""
        most = taste.followed[0][1]
        liked = {item_id: weight / most for item_id, weight in taste.followed}
        gone = dropped_among(liked, taste)
        both = Counter(dict(crowd.proposals))
        both.update({i: share for i, share in liked.items() if i not in gone})

        def score_of(ids: Sequence[str]) -> Floats:
            shares = np.array([liked.get(item_id, 0.0) for item_id in ids], np.float32)
            return shares if crowd.score_of is None else shares + np.nan_to_num(crowd.score_of(ids))

        return Plan(proposals=tuple(both.most_common(self._limit)), score_of=score_of)


def _direction(taste: Taste, communities: Communities) -> Floats | None:
    """Where the user stands: the mean of the likes, else what the profile or a text says."""
    if taste.likes and not communities.of_likes:
        return None
    known = [taste.known_items[anchor.item_id] for anchor in taste.likes if anchor.item_id in taste.known_items]
    vectors = [item.vector for item in known if item.vector.shape[0] == communities.centres.shape[1]]
    if vectors:
        mean: Floats = np.mean(vectors, axis=0)
        return mean
    text = taste.profile_vector or taste.query_vector
    if text is None or text.fingerprint != communities.fingerprint:
        return None
    return communities.of_text(text.vector)
