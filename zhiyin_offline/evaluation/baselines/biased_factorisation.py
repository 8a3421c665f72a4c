"""Ratings from biases and factors (Koren, Bell, Volinsky 2009), fitted by alternating ridge regressions (Zhou 2008)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

Values = NDArray[np.float64]
Numbers = NDArray[np.int32]


class BiasedFactorisation:
    """rating(user, item) = mean + user bias + item bias + user factors . item factors.

    Args:
        seed: Of the first item factors.
        factors: Components of a vector.
        regularization: Of every coefficient, times the ratings of its row.
        damping: Added to that, in ratings: a row of few ratings stays near the mean.
        iterations: Alternations.
    """

    name = "biased-mf"

    def __init__(
        self,
        seed: int = 0,
        factors: int = 16,
        regularization: float = 0.1,
        damping: float = 2.0,
        iterations: int = 10,
    ) -> None:
        self._seed, self._factors, self._iterations = seed, factors, iterations
        self._regularization, self._damping = regularization, damping

    def fit(self, users: Numbers, items: Numbers, ratings: Values, user_count: int, item_count: int) -> None:
        """Alternates. All three columns have one row a rating."""
        self._mean = float(ratings.mean()) if len(ratings) else 0.0
        rng = np.random.default_rng(self._seed)
        # The first column is the bias.
        self._user = np.zeros((user_count, self._factors + 1))
        self._item = np.concatenate(
            [np.zeros((item_count, 1)), rng.normal(0, 0.1, (item_count, self._factors))], axis=1
        )
        left = ratings - self._mean
        by_user, by_item = _rows_of(users, user_count), _rows_of(items, item_count)
        with threadpool_limits(1, "blas"):  # thousands of small systems: threads would wait for each other
            for _ in range(self._iterations):
                self._solve(self._user, by_user, self._item, items, left)
                self._solve(self._item, by_item, self._user, users, left)

    def predict(self, users: Numbers, items: Numbers) -> Values:
        """Expected ratings, shape (rows,); a user or an item without ratings counts as average."""
        p, q = self._user[users], self._item[items]
        out: Values = self._mean + p[:, 0] + q[:, 0] + (p[:, 1:] * q[:, 1:]).sum(axis=1)
        return out

    def _solve(
        self, own: Values, rows_of: list[NDArray[np.int64]], other: Values, other_of: Numbers, left: Values
    ) -> None:
        for number, rows in enumerate(rows_of):
            if len(rows):
                theirs = other[other_of[rows]]
                features = np.concatenate([np.ones((len(rows), 1)), theirs[:, 1:]], axis=1)
                penalty = self._regularization * (len(rows) + self._damping) * np.eye(features.shape[1])
                penalty[0, 0] += self._damping
                own[number] = np.linalg.solve(features.T @ features + penalty, features.T @ (left[rows] - theirs[:, 0]))


def _rows_of(numbers: Numbers, count: int) -> list[NDArray[np.int64]]:
    order = np.argsort(numbers, kind="stable")
    bounds = np.searchsorted(numbers[order], np.arange(count + 1))
    return [order[start:end] for start, end in pairwise(bounds)]
