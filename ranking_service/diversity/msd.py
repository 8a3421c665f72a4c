"""Max-sum diversification (Borodin, Lee and Ye 2012), greedily and lazily: a place costs one matrix-vector product."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ranking_service.candidate import Floats

# Places after which the rest comes by relevance: nobody compares the 201st item with the first.
_MAX_STEPS = 200


def msd_order(relevance: Floats, vectors: Floats, diversity: float, kept: int = 1) -> Iterator[int]:
    """Yields all rows, each next one with the largest `(1 - diversity) * relevance - diversity * mean similarity`.

    The similarity is the mean cosine to all rows before, so that the greedy choice works on what variety is measured
    by: the mean distance of all pairs of a list.

    Args:
        relevance: Shape (n,), on a scale of [0, 1], sorted falling.
        vectors: Shape (n, d), rows of length 1 or 0.
        diversity: In [0, 1]; 0 gives the order of relevance.
        kept: This many first rows keep their places.
    """
    n = len(relevance)
    weighted = (1.0 - diversity) * relevance
    similarity = np.zeros(n, dtype=np.float32)
    chosen = np.zeros(n, dtype=bool)
    for place in range(min(n, _MAX_STEPS)):
        row = place if place < kept else int(np.argmax(weighted - (diversity / place) * similarity))
        yield row
        chosen[row] = True
        weighted[row] = -np.inf
        similarity += vectors @ vectors[row]
    yield from np.flatnonzero(~chosen).tolist()
