"""What serves once something was learned: learned weights, and over the best of them, perhaps, the learned ranker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ranking_service.attribute_features.attribute_features import AttributeFeatures
from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.scorers.calibration import Calibration
from ranking_service.scorers.features import NAMES, features
from ranking_service.scorers.scorer import Opinions
from ranking_service.scorers.source_weights import source_weights
from ranking_service.scorers.tree_ranker import TreeRanker
from ranking_service.scorers.weighted_sum import Scores, weighted_sum
from ranking_service.taste import Taste

# What people say in words and whom they follow, of which a training hears nothing: it reads events.
_UNHEARD = (SourceKind.PROFILE, SourceKind.QUERY, SourceKind.COMMUNITY)


class LearnedScorer:
    """A bundle's scorer.

    What was learned is about users with a history who browse: a request with a text, and users without events, are
    scored by the weights of the house, in which a text decides. A profile, or a search of the last day, counts beside
    the learned weights as much as it does beside those of the house.

    Args:
        weights: Of the sources' z-scores; None: those of the house.
        ranker: Orders the best of the weighted sum; None: the sum decides.
        depth: So many of the best.
        new_items: Added to a candidate nobody has acted on, half of it after one user, a third after two: of the
            sources, only those that read texts can speak for it. The ranker, which has seen few like it, lets
            candidates that nobody has acted on keep their places.
        calibration: From the relevance to the chance that the user acts on what is shown; None: chances are unknown.
        attributes: What the ranker reads besides the columns of `features`, behind them; None: nothing.
    """

    def __init__(
        self,
        weights: Mapping[SourceKind, float] | None,
        ranker: TreeRanker | None,
        depth: int,
        new_items: float = 0.0,
        calibration: Calibration | None = None,
        attributes: AttributeFeatures | None = None,
    ) -> None:
        self._weights, self._ranker, self._depth, self._new_items = weights, ranker, depth, new_items
        self.calibration, self._attributes = calibration, attributes
        self._names = NAMES + (attributes.spec.names if attributes is not None else ())

    def score(self, taste: Taste, pool: Pool, opinions: Opinions) -> Scores:
        """See `Scorer`."""
        scores = self._relevance(taste, pool, opinions)
        if self.calibration is None or (known := self.on_scale(taste, scores)) is None:
            return scores
        return replace(scores, chance=self.calibration.chances(known))

    def on_scale(self, taste: Taste, scores: Scores) -> Floats | None:
        """The relevance on the one scale that the scores of different requests share, shape (n,).

        It is that of users with a history who browse, as trainings hear them: what sources add of which they hear
        nothing is taken off again.

        Returns:
            None where there is no such scale: for requests with a text, users without events, lists that intents move,
            and where a learned ranker has dealt out anew what such a source added.
        """
        if not _hears(taste) or taste.understood.factors:
            return None
        learned = self._weights or {}
        unheard = [scores.by_source[k] for k in _UNHEARD if k in scores.by_source and k not in learned]
        unheard = [values for values in unheard if values.any()]
        if not unheard:
            return scores.total
        return None if scores.ranked_by is not None else scores.total - np.sum(unheard, axis=0, dtype=np.float32)

    def _relevance(self, taste: Taste, pool: Pool, opinions: Opinions) -> Scores:
        learned = _hears(taste)
        house = source_weights(taste)
        weights = house
        if learned and self._weights is not None:
            house = _at_scale_of(self._weights, house)
            weights = _with_texts(self._weights, house)
        weights = taste.understood.weights(weights, house)
        nudge, newness = opinions.nudge, None
        if learned and self._new_items > 0 and opinions.newness is not None:
            newness = opinions.newness()
            nudge = nudge + np.float32(self._new_items) * newness
        blend = weighted_sum(pool, opinions.evidence, opinions.resolutions, weights, nudge)
        # Whom the ranker learned from was up to nothing in particular: it would undo what was just moved.
        if not learned or self._ranker is None or len(pool) == 0 or taste.understood.factors:
            return blend
        rows = np.argsort(-blend.total, kind="stable")[: self._depth]
        if newness is not None:
            rows = rows[newness[rows] < 1]
        columns = features(taste, pool, opinions, blend.total)[rows]
        if self._attributes is not None:
            columns = np.hstack([columns, self._attributes.of_pool(taste, pool, rows)])
        total = reranked(blend.total, rows, self._ranker.score(columns))
        read = np.full((len(pool), columns.shape[1]), np.nan, np.float32)
        read[rows] = columns
        return replace(blend, total=total, ranked_by=read, read_names=self._names)


def _hears(taste: Taste) -> bool:
    """Whether somebody with a history browses: what trainings learn from."""
    return bool(taste.likes) and not taste.query.text


def _with_texts(learned: Mapping[SourceKind, float], house: Mapping[SourceKind, float]) -> Mapping[SourceKind, float]:
    """The learned weights, and of sources that read texts those of the house."""
    return {**{kind: house.get(kind, 0.0) for kind in _UNHEARD}, **learned}


def _at_scale_of(learned: Mapping[SourceKind, float], house: Mapping[SourceKind, float]) -> Mapping[SourceKind, float]:
    """The weights of the house on the scale of learned ones, where both speak of what users did."""
    scale = sum(learned.values()) / sum(weight for kind, weight in house.items() if kind not in _UNHEARD)
    return {kind: scale * weight for kind, weight in house.items()}


def reranked(blend: Floats, rows: np.ndarray[tuple[int], np.dtype[np.intp]], scores: Floats) -> Floats:
    """The blend with `rows` lifted above all others and ordered by `scores`, on a scale that diversity can work with.

    The rows keep the values that they had among themselves, in the new order: a ranker's scores say which is better,
    and their distances mean nothing outside of the model.
    """
    total = blend.copy()
    total[rows[np.argsort(-scores, kind="stable")]] = np.sort(blend[rows])[::-1]
    return total
