"""Chances that a user acts on what is shown: the relevance of what serves, calibrated on recorded impressions.

Some users are set aside for it: until the map is fitted, nothing at all is learned from them. What they were shown is
scored as the services would have scored it at that moment, by what serves in the end: with models that know none of
their events, their own history before the moment, and statistics of what had happened before it. So no score has seen
its outcome, and the users being drawn, the rate of what they acted on is that of everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranking_service.bundles.serving_bundle import ServingBundle
from ranking_service.pipeline import Judged
from ranking_service.scorers.learned import LearnedScorer
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.impressions import Impressions, Moment, impressions, moments
from zhiyin_offline.evaluation.in_process import RecordedService
from zhiyin_offline.training.calibration_fit import brier, expected_calibration_error, fit, reliability
from zhiyin_offline.training.differences import standard_error
from zhiyin_offline.training.draws import drawn

Users = NDArray[np.int64]
# Of the users who were shown something: the others have to teach everything else.
_SHARE = 0.1
# With fewer impressions, or fewer acted on or passed over, there is nothing to fit. Beyond so many, nothing is gained.
_FEW, _FEW_OF_EACH, _ENOUGH = 500, 50, 50_000
# Each takes a list's time.
_MOST_MOMENTS = 1_500
_FOLDS = 5
# Standard errors by which the map must be better than the rate of all.
_LEAD = 1.0


@dataclass(frozen=True)
class Calibrated:
    """What came out: the map as a manifest has it, empty without one, and what it was judged by."""

    fields: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """What the impressions of some users scored, those with a score on the common scale. Shapes (n,)."""

    scores: NDArray[np.float64]
    acted: NDArray[np.bool_]
    users: Users


def set_aside(dataset: Dataset, seed: int) -> Users:
    """The users whose impressions the map is fitted to, rising; none where there is too little to fit one."""
    if not np.any(dataset.events.shown >= 0):
        return np.empty(0, np.int64)
    shown = impressions(dataset)
    users = np.unique(shown.user)
    chosen = np.random.default_rng(seed).permutation(users)[: int(_SHARE * len(users))]
    counts = np.bincount(shown.user, minlength=len(dataset.user_ids))[chosen]
    chosen = chosen[: int(np.searchsorted(np.cumsum(counts), _ENOUGH)) + 1]
    of_chosen = shown.take(np.isin(shown.user, chosen))
    return np.sort(chosen).astype(np.int64) if enough(of_chosen) else np.empty(0, np.int64)


def enough(shown: Impressions | Scored) -> bool:
    """Whether a map can be fitted to them."""
    acted = int(np.count_nonzero(shown.acted))
    return len(shown.acted) >= _FEW and min(acted, len(shown.acted) - acted) >= _FEW_OF_EACH


def calibrate(service: RecordedService, served: ServingBundle, dataset: Dataset, users: Users, seed: int) -> Calibrated:
    """Fits the map, and keeps it when it says more than the rate of all.

    Args:
        service: Its bundle asks the sources that serve, learned without these users; its statistics are empty.
        served: What serves, learned from everybody: of it the scorer counts.
        dataset: The record.
        users: Of `set_aside`; some.
        seed: Of folds and of the moments that are looked at.
    """
    service.bundle = replace(served, sequence=service.bundle.sequence, learned=service.bundle.learned)
    scored = score_moments(service, dataset, drawn_moments(dataset, users, seed))
    if not enough(scored):
        return Calibrated({}, {"impressions": len(scored.acted), "serves": False, "why": "too few impressions"})
    chances, rates = _out_of_fold(scored, seed)
    better = brier(rates, scored.acted) - brier(chances, scored.acted)
    serves = bool(better.mean() > _LEAD * standard_error(better))
    found = fit(scored.scores, scored.acted).fields() if serves else {}
    return Calibrated(found, {**figures(chances, rates, scored), "serves": serves})


def figures(chances: NDArray[np.float64], rates: NDArray[np.float64], scored: Scored) -> dict[str, Any]:
    """How good chances are, beside those who give everything the same rate."""
    return {
        "impressions": len(scored.acted),
        "users": len(np.unique(scored.users)),
        "rate": round(float(scored.acted.mean()), 5),
        "calibration_error": round(expected_calibration_error(chances, scored.acted), 5),
        "brier": round(float(brier(chances, scored.acted).mean()), 6),
        "brier_of_rate": round(float(brier(rates, scored.acted).mean()), 6),
        "reliability": reliability(chances, scored.acted),
    }


def drawn_moments(dataset: Dataset, users: Users, seed: int) -> list[Moment]:
    """Of the later half of what they were shown, when statistics were no longer thin: at most `_MOST_MOMENTS`."""
    found = _with_history(dataset, moments(dataset, impressions(dataset), users.tolist()))
    return drawn(found[len(found) // 2 :], _MOST_MOMENTS, seed)


def judge_later(service: RecordedService, dataset: Dataset, since: float, rate: float, seed: int) -> dict[str, Any]:
    """How good the chances of a bundle are on what was shown after its training; empty where that is too little.

    Args:
        service: With the bundle; its statistics hold everything before `since` and nothing else.
        dataset: The record.
        since: Unix seconds: nothing from then on was learned from.
        rate: Of what was acted on in the training.
        seed: Of the moments that are looked at.
    """
    shown = impressions(dataset)
    later = shown.take(shown.time >= since)
    told = _with_history(dataset, moments(dataset, later, np.unique(later.user).tolist()))
    scored = score_moments(service, dataset, drawn(told, _MOST_MOMENTS, seed))
    calibration = _scorer(service).calibration
    if calibration is None or not enough(scored):
        return {}
    chances = calibration.chances(scored.scores.astype(np.float32)).astype(np.float64)
    return figures(chances, np.full(len(chances), rate), scored)


def _with_history(dataset: Dataset, found: Sequence[Moment]) -> list[Moment]:
    """Without a history there is no score on the common scale."""
    return [moment for moment in found if dataset.positive[moment.case.history].any()]


def score_moments(service: RecordedService, dataset: Dataset, shown: Sequence[Moment]) -> Scored:
    """Scores of what was shown, as far as it was among the candidates of that moment and on the common scale.

    Args:
        service: Its statistics, of the first events of the record, take in what had happened before each moment.
        dataset: The record.
        shown: By rising time.
    """
    parts: list[tuple[NDArray[np.float64], NDArray[np.bool_], int]] = []
    scorer = _scorer(service)
    folded = int(np.count_nonzero(service.statistics.known))
    for moment in shown:
        before = int(np.searchsorted(dataset.events.time, moment.case.now, side="left"))
        if before > folded:
            service.statistics.fold(np.arange(folded, before))
            folded = before
        parts += service.judge([moment.case], _reader(scorer, dataset, moment))
    return Scored(
        np.concatenate([np.empty(0), *(scores for scores, _, _ in parts)]),
        np.concatenate([np.empty(0, np.bool_), *(acted for _, acted, _ in parts)]),
        np.repeat([user for *_, user in parts], [len(scores) for scores, _, _ in parts]).astype(np.int64),
    )


def _scorer(service: RecordedService) -> LearnedScorer:
    scorer = service.bundle.scorer
    if not isinstance(scorer, LearnedScorer):
        raise TypeError("only what a bundle serves is calibrated")
    return scorer


def _reader(
    scorer: LearnedScorer, dataset: Dataset, moment: Moment
) -> Callable[[Judged], tuple[NDArray[np.float64], NDArray[np.bool_], int]]:
    def read(judged: Judged) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
        scores = scorer.score(judged.taste, judged.pool, judged.opinions)
        known = scorer.on_scale(judged.taste, scores)
        place = {item_id: row for row, item_id in enumerate(judged.pool.ids)} if known is not None else {}
        rows = [place.get(dataset.item_ids[item], -1) for item in moment.items.tolist()]
        there = np.array(rows) >= 0
        values = np.empty(0) if known is None else known[[row for row in rows if row >= 0]].astype(np.float64)
        return values, moment.acted[there], moment.case.user

    return read


def _out_of_fold(scored: Scored, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Chances and rates of each impression, by what the impressions of other users taught."""
    users = np.unique(scored.users)
    of_user = np.random.default_rng(seed).permutation(len(users)) % _FOLDS
    fold = of_user[np.searchsorted(users, scored.users)]
    chances, rates = np.zeros(len(fold)), np.zeros(len(fold))
    for number in range(_FOLDS):
        held = fold == number
        acted = scored.acted[~held]
        if held.any() and 0 < np.count_nonzero(acted) < len(acted):
            chances[held] = fit(scored.scores[~held], acted).chances(scored.scores[held].astype(np.float32))
            rates[held] = acted.mean()
    return chances, rates
