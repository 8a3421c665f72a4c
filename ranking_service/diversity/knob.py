"""One knob for every method: 0 is the most relevant list however alike, 1 the most varied."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ranking_service.candidate import Floats
from ranking_service.diversity.dpp import dpp_order
from ranking_service.diversity.mmr import mmr_order
from ranking_service.query import DEFAULT_DIVERSITY, DiversityMethod

# Up to the default the top of the list is not touched: measured, it costs no relevance and keeps most of the variety.
_KEPT_PLACES = 3


def diverse_order(scores: Floats, vectors: Floats, diversity: float, method: DiversityMethod) -> Iterator[int]:
    """Yields all rows in the order of the list, deterministically; the first k do not depend on how many are read.

    Args:
        scores: Relevance on any scale, sorted falling. Shape (n,).
        vectors: Shape (n, d), rows of length 1 or 0 (0: unlike everything).
        diversity: In [0, 1].
        method: How.
    """
    if method is DiversityMethod.NONE or diversity <= 0 or len(scores) < 3:
        return iter(range(len(scores)))
    kept = min(_KEPT_PLACES if diversity <= DEFAULT_DIVERSITY else 1, len(scores))
    order = mmr_order if method is DiversityMethod.MMR else dpp_order
    return order(unit_scale(scores), vectors, diversity, kept)


def unit_scale(scores: Floats) -> Floats:
    """Scores moved and stretched to [0, 1]; equal scores all become 1."""
    low, high = float(scores.min()), float(scores.max())
    if high - low < 1e-9:
        return np.ones(len(scores), dtype=np.float32)
    # In double precision: a caller's scores may lie as far apart as single precision reaches.
    scores = scores.astype(np.float64)
    return ((scores - low) / (high - low)).astype(np.float32)
