"""How different the items of a list are from each other: intra-list diversity (Smyth and McClave, 2001)."""

from __future__ import annotations

import numpy as np

from ranking_service.candidate import Floats, Halves


def variety(vectors: Floats | Halves) -> float | None:
    """The mean of 1 - cosine over all pairs: 0 for one thing over and over, 1 for what has nothing in common.

    Args:
        vectors: Shape (n, d), rows of any length; rows of zeros are left out.

    Returns:
        None: there are no two vectors to compare.
    """
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    rows = vectors[lengths > 0].astype(np.float32) / lengths[lengths > 0, None]
    n = len(rows)
    if n < 2:
        return None
    # The squared length of the sum is the sum of the cosines of all ordered pairs and of each with itself.
    total = rows.sum(axis=0)
    return float(1.0 - (total @ total - n) / (n * (n - 1)))
