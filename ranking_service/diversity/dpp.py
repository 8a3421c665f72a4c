"""Greedy MAP of a determinantal point process (Chen, Zhang and Zhou 2018, Algorithm 1), lazily."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ranking_service.candidate import Floats

# On the diagonal: keeps the kernel positive definite, so that duplicates and zero vectors get their turn by relevance.
_JITTER = 1e-3
# Steps after which the rest comes by relevance: memory and time of a step grow with the steps before.
_MAX_STEPS = 128


def dpp_order(relevance: Floats, vectors: Floats, diversity: float, kept: int = 1) -> Iterator[int]:
    """Yields all rows, each next one adding most to the determinant of `diag(q) S diag(q)`.

    `S` holds the cosines and `q = exp(a * relevance)` with `a = 2 (1 - diversity) / diversity`: at 1 relevance counts
    for nothing, towards 0 for everything.

    Args:
        relevance: Shape (n,), on a scale of [0, 1], sorted falling.
        vectors: Shape (n, d), rows of length 1 or 0.
        diversity: In [0, 1]; 0 gives the order of relevance.
        kept: This many first rows keep their places.
    """
    n = len(relevance)
    if diversity < 1e-3:
        yield from range(n)
        return
    # Gains are compared as logarithms: log q^2 + log(what the chosen rows leave of the row's length).
    log_quality = (4.0 * (1.0 - diversity) / diversity) * relevance.astype(np.float64)
    residual = np.einsum("ij,ij->i", vectors, vectors).astype(np.float64) + _JITTER
    steps = min(n, _MAX_STEPS)
    components = np.zeros((steps, n))
    chosen = np.zeros(n, dtype=bool)
    for place in range(steps):
        gains = log_quality + np.log(np.maximum(residual, 1e-12))
        gains[chosen] = -np.inf
        row = place if place < kept else int(np.argmax(gains))
        yield row
        chosen[row] = True
        seen = components[:place]
        component = (vectors @ vectors[row] - seen[:, row] @ seen) / np.sqrt(max(residual[row], 1e-12))
        components[place] = component
        residual = residual - component * component
    yield from np.flatnonzero(~chosen).tolist()
