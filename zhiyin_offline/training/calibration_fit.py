"""Fits a monotone map from scores to chances, and says how far chances are from what happened. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize

from ranking_service.scorers.calibration import Calibration, Knots, Logistic

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Two parameters below so many positives, any monotone shape from there on.
_MANY_POSITIVES = 1_000
# Of the monotone shape, before what falls is joined.
_KNOTS = 50
BINS = 10


class Bin(TypedDict):
    """Scores of one bin: how many, the mean of the chances they were given, and the share that came true."""

    impressions: int
    predicted: float
    observed: float


def fit(scores: Values, acted: Flags) -> Calibration:
    """The map from scores to chances.

    Args:
        scores: Shape (n,), finite.
        acted: What happened, shape (n,), some of either.
    """
    return fit_isotonic(scores, acted) if np.count_nonzero(acted) >= _MANY_POSITIVES else fit_logistic(scores, acted)


def fit_logistic(scores: Values, acted: Flags) -> Logistic:
    """Platt scaling (Platt 1999), its targets drawn in a little so that nothing becomes certain; never falling."""
    middle, spread = float(scores.mean()), float(scores.std()) or 1.0
    scaled = (scores - middle) / spread
    positives, negatives = np.count_nonzero(acted), np.count_nonzero(~acted)
    wanted = np.where(acted, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(found: Values) -> tuple[float, Values]:
        odds = found[0] * scaled + found[1]
        missed = 1.0 / (1.0 + np.exp(-odds)) - wanted
        value = float(np.mean(np.logaddexp(0.0, odds) - wanted * odds))
        return value, np.array([np.mean(missed * scaled), np.mean(missed)])

    rate = float(wanted.mean())
    start = np.array([0.0, np.log(rate / (1.0 - rate))])
    slope, intercept = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)]).x
    return Logistic(float(slope / spread), float(intercept - slope * middle / spread))


def fit_isotonic(scores: Values, acted: Flags) -> Knots:
    """Isotonic regression (Zadrozny and Elkan 2002) over fifty bins of equal size, linear between their mean scores.

    Each bin counts one more impression that came true as often as all do, so that none is certain.
    """
    rate = float(acted.mean())
    places = _equal_bins(scores, _KNOTS)
    sizes = np.array([len(rows) for rows in places], float)
    shares = np.array([(np.count_nonzero(acted[rows]) + rate) / (len(rows) + 1) for rows in places])
    rising = isotonic_regression(shares, weights=sizes).x
    middles = np.array([scores[rows].mean() for rows in places])
    # Bins of one score are one knot: that of all their impressions.
    knots, where = np.unique(middles, return_inverse=True)
    chances = np.bincount(where, rising * sizes) / np.bincount(where, sizes)
    return Knots(tuple(knots.tolist()), tuple(np.maximum.accumulate(chances).tolist()))


def expected_calibration_error(chances: Values, acted: Flags) -> float:
    """Mean distance of predicted and observed over ten bins of equal size (ECE; Naeini et al. 2015)."""
    bins = reliability(chances, acted)
    total = sum(b["impressions"] for b in bins)
    return sum(b["impressions"] * abs(b["predicted"] - b["observed"]) for b in bins) / total if total else 0.0


def brier(chances: Values, acted: Flags) -> Values:
    """Squared errors (Brier 1950), shape (n,)."""
    return (chances - acted) ** 2


def reliability(chances: Values, acted: Flags) -> list[Bin]:
    """Ten bins of equal size by rising chance; fewer where there are fewer chances."""
    return [
        Bin(
            impressions=len(rows),
            predicted=round(float(chances[rows].mean()), 5),
            observed=round(float(acted[rows].mean()), 5),
        )
        for rows in _equal_bins(chances, BINS)
    ]


def _equal_bins(values: Values, count: int) -> Sequence[NDArray[np.intp]]:
    """Rows by rising value in bins that differ by one at most; none is empty."""
    bins = np.array_split(np.argsort(values, kind="stable"), min(count, len(values)) or 1)
    return [rows for rows in bins if len(rows)]
