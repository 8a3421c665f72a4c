"""Weights of the sources, learned by a conditional logit (McFadden 1974): the target is the candidate that was chosen.

    P(target) = exp(w . z_target) / sum over candidates of exp(w . z),  w >= 0

On sets with and without text these weights never lost to the best single source, which fixed ones did.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from zhiyin_offline.training.blend_table import BlendTable
from zhiyin_offline.training.examples import Floats

_RIDGE = 1e-3
_MAX_CASES = 5_000


def fit_weights(table: BlendTable, most: int = _MAX_CASES) -> Floats:
    """Weights as columns of the opinions, from the first `most` cases that hold their target; zeros when none does."""
    table = table.take(np.flatnonzero(table.targets >= 0)[:most])
    rows, chosen, starts = table.opinions, table.targets, table.starts[:-1]
    count = rows.shape[1]
    if not len(table):
        return np.zeros(count, np.float32)
    lengths = np.diff(table.starts)
    wanted = rows[chosen].mean(axis=0, dtype=np.float64)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = rows @ weights.astype(np.float32)
        scores -= np.repeat(np.maximum.reduceat(scores, starts), lengths)
        best = scores[chosen].astype(np.float64)
        shares = np.exp(scores)
        totals = np.add.reduceat(shares, starts)
        shares /= np.repeat(totals, lengths)
        value = float((np.log(totals) - best).mean() + _RIDGE * weights @ weights)
        # One product: the mean over the cases of what each expects.
        expected = (shares @ rows).astype(np.float64) / len(starts)
        return value, expected - wanted + 2 * _RIDGE * weights

    found = minimize(loss, np.full(count, 0.5), jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * count)
    silent = ~np.any(rows, axis=0)  # a source that never said anything keeps no weight
    return np.where(silent, 0.0, found.x).astype(np.float32)
