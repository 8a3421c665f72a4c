"""Weights of the sources, learned by a conditional logit (McFadden 1974): the target is the candidate that was chosen.

    P(target) = exp(w . z_target) / sum over candidates of exp(w . z),  w >= 0

On sets with and without text these weights never lost to the best single source, which fixed ones did.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from zhiyin_offline.training.examples import Example, Floats

_RIDGE = 1e-3
_MAX_EXAMPLES = 5_000


def fit_weights(examples: Sequence[Example], most: int = _MAX_EXAMPLES) -> Floats:
    """Weights as columns of `Example.opinions`, from `most` examples; zeros when no example holds its target."""
    useful = [example for example in examples if example.target >= 0][:most]
    count = examples[0].opinions.shape[1] if examples else 0
    if not useful:
        return np.zeros(count, np.float32)
    rows = np.concatenate([example.opinions for example in useful]).astype(np.float64)
    starts = np.cumsum([0, *(len(example.opinions) for example in useful[:-1])])
    targets = rows[starts + np.array([example.target for example in useful])]
    lengths = np.diff([*starts, len(rows)])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = rows @ weights
        scores -= np.repeat(np.maximum.reduceat(scores, starts), lengths)
        shares = np.exp(scores)
        totals = np.add.reduceat(shares, starts)
        shares /= np.repeat(totals, lengths)
        expected = np.add.reduceat(rows * shares[:, None], starts)
        best = np.array([scores[start + example.target] for start, example in zip(starts, useful, strict=True)])
        value = float((np.log(totals) - best).mean() + _RIDGE * weights @ weights)
        return value, (expected - targets).mean(axis=0) + 2 * _RIDGE * weights

    found = minimize(loss, np.full(count, 0.5), jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * count)
    silent = ~np.any(rows, axis=0)  # a source that never said anything keeps no weight
    return np.where(silent, 0.0, found.x).astype(np.float32)
