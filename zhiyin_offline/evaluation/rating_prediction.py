"""How well ratings are predicted, on data that has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin_offline.evaluation.baselines.biased_factorisation import BiasedFactorisation
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.metrics.ratings import mean_absolute_error, root_mean_squared_error
from zhiyin_offline.evaluation.protocols import Rows, user_rows

_MIN_RATINGS = 100
_CUT = 0.9


def last_ratings(dataset: Dataset) -> tuple[Rows, Rows]:
    """Rows of ratings to learn from and to predict: every user's last one, high or low, of users with two or more."""
    rated = _ratings(dataset)
    held = np.zeros(len(rated), dtype=np.bool_)
    for rows in user_rows(dataset):
        given = rows[rated[rows]]
        if len(given) >= 2:
            held[given[-1]] = True
    return np.flatnonzero(rated & ~held), np.flatnonzero(held)


def late_ratings(dataset: Dataset) -> tuple[Rows, Rows]:
    """Rows of ratings before and after the cut at 90 % of all events; equal times stay together."""
    rated, times = _ratings(dataset), dataset.events.time
    cut = times[int(_CUT * len(times))] if len(times) else 0.0
    return np.flatnonzero(rated & (times < cut)), np.flatnonzero(rated & (times >= cut))


def rating_errors(dataset: Dataset, training: Rows, held: Rows, seed: int = 0) -> dict[str, dict[str, float]]:
    """`mae` and `rmse` of biased factorisation, and of always saying the mean; empty for data without ratings."""
    if len(training) < _MIN_RATINGS or not len(held):
        return {}
    events = dataset.events
    model = BiasedFactorisation(seed)
    model.fit(
        events.user[training],
        events.item[training],
        events.value[training],
        len(dataset.user_ids),
        len(dataset.items),
    )
    given = events.value[held]
    mean = np.full(len(held), events.value[training].mean())
    predicted = np.clip(
        model.predict(events.user[held], events.item[held]),
        events.value[training].min(),
        events.value[training].max(),
    )
    return {
        name: {"mae": mean_absolute_error(said, given), "rmse": root_mean_squared_error(said, given)}
        for name, said in ((model.name, predicted), ("mean", mean))
    }


def _ratings(dataset: Dataset) -> NDArray[np.bool_]:
    events = dataset.events
    out: NDArray[np.bool_] = (events.event_type == pb.EVENT_TYPE_RATING) & (events.item >= 0) & ~np.isnan(events.value)
    return out
