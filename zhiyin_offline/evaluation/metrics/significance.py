"""How sure a figure is: standard errors and the paired bootstrap, both over users.

Cases of one user are not independent of each other. So what varies is who was looked at: users are drawn, each with all
of their cases, and every method is judged on the same draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
RESAMPLES = 10_000
_BLOCK = 128


@dataclass(frozen=True, slots=True)
class Difference:
    """What the bootstrap says about the difference of two means.

    Attributes:
        difference: First less second.
        low, high: 95 % interval.
        p: Two-sided.
    """

    difference: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> Literal["win", "lose", "undecided"]:
        """Of the first: by whether the interval has 0 in it."""
        if self.low > 0:
            return "win"
        return "lose" if self.high < 0 else "undecided"

    def reversed(self) -> Difference:
        """Second less first."""
        return Difference(-self.difference, -self.high, -self.low, self.p)


def mean_and_error(values: Values, users: NDArray[np.int64]) -> tuple[float, float]:
    """Mean over cases and its standard error over users; NaNs are left out, and without two users the error is NaN.

    Args:
        values: Shape (cases,).
        users: Who each case is of, shape (cases,).
    """
    known = ~np.isnan(values)
    values, users = values[known], users[known]
    if not len(values):
        return float("nan"), float("nan")
    mean = float(values.mean())
    sums, counts = _by_user(values[:, None], users)
    users_count = len(counts)
    if users_count < 2:
        return mean, float("nan")
    # Of a ratio of two sums over users (linearised): residuals sum to zero.
    residuals = sums[:, 0] - mean * counts
    spread = float((residuals**2).sum()) / (users_count - 1)
    return mean, float(np.sqrt(spread / users_count) / counts.mean())


class PairedBootstrap:
    """Draws users again and again, and remembers every column's mean on every draw.

    Args:
        values: One column a method, one row a case, without NaN; shape (cases, columns).
        users: Who each case is of, shape (cases,).
        resamples: Draws.
        seed: Of the draws.
    """

    def __init__(self, values: Values, users: NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0) -> None:
        self._means = values.mean(axis=0)
        sums, counts = _by_user(values, users)
        table = np.column_stack([sums, counts])
        rng = np.random.default_rng(seed)
        draws = np.empty((resamples, table.shape[1]))
        people = len(counts)
        for start in range(0, resamples, _BLOCK):
            size = min(_BLOCK, resamples - start)
            times = np.stack([np.bincount(rng.integers(0, people, people), minlength=people) for _ in range(size)])
            draws[start : start + size] = times @ table
        self._draws = draws[:, :-1] / draws[:, -1:]

    def compare(self, first: int, second: int) -> Difference:
        """Column `first` against column `second`."""
        draws = self._draws[:, first] - self._draws[:, second]
        low, high = np.quantile(draws, (0.025, 0.975))
        # One more draw on either side: no finite number of draws shows a chance of zero.
        below, above = (np.count_nonzero(draws <= 0) + 1, np.count_nonzero(draws >= 0) + 1)
        p = min(1.0, 2 * min(below, above) / (len(draws) + 1))
        return Difference(float(self._means[first] - self._means[second]), float(low), float(high), float(p))


def _by_user(values: Values, users: NDArray[np.int64]) -> tuple[Values, Values]:
    """Sums of each column by user, shape (users, columns), and cases by user."""
    _, places = np.unique(users, return_inverse=True)
    counts: Values = np.bincount(places).astype(np.float64)
    sums: Values = np.stack([np.bincount(places, weights=column) for column in values.T], axis=1)
    return sums, counts
