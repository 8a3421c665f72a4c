"""What serves once something was learned: learned weights, and over the best of them, perhaps, the learned ranker."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.scorers.features import features
from ranking_service.scorers.scorer import Opinions
from ranking_service.scorers.source_weights import source_weights
from ranking_service.scorers.tree_ranker import TreeRanker
from ranking_service.scorers.weighted_sum import Scores, weighted_sum
from ranking_service.taste import Taste


class LearnedScorer:
    """A bundle's scorer.

    What was learned is about users with a history who browse: a request with a text, and users without events, are
    scored by the weights of the house, in which a text decides.

    Args:
        weights: Of the sources' z-scores; None: those of the house.
        ranker: Orders the best of the weighted sum; None: the sum decides.
        depth: So many of the best.
    """

    def __init__(self, weights: Mapping[SourceKind, float] | None, ranker: TreeRanker | None, depth: int) -> None:
        self._weights, self._ranker, self._depth = weights, ranker, depth

    def score(self, taste: Taste, pool: Pool, opinions: Opinions) -> Scores:
        """See `Scorer`."""
        learned = bool(taste.likes) and not taste.query.text
        weights = self._weights if learned and self._weights is not None else source_weights(taste)
        blend = weighted_sum(pool, opinions.evidence, opinions.resolutions, weights, opinions.nudge)
        if not learned or self._ranker is None or len(pool) == 0:
            return blend
        rows = np.argsort(-blend.total, kind="stable")[: self._depth]
        columns = features(taste, pool, opinions, blend.total)[rows]
        total = reranked(blend.total, rows, self._ranker.score(columns))
        return Scores(total, blend.by_source, blend.nudge)


def reranked(blend: Floats, rows: np.ndarray[tuple[int], np.dtype[np.intp]], scores: Floats) -> Floats:
    """The blend with `rows` lifted above all others and ordered by `scores`, on a scale that diversity can work with.

    The rows keep the values that they had among themselves, in the new order: a ranker's scores say which is better,
    and their distances mean nothing outside of the model.
    """
    total = blend.copy()
    total[rows[np.argsort(-scores, kind="stable")]] = np.sort(blend[rows])[::-1]
    return total
