"""Item vectors as the text space of the retrieval service compares them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval_service.centering import transform, unit


def centred(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the catalogue subtracted and length 1; zeros, which say nothing, stay zeros and out of the mean."""
    vectors = unit(vectors)
    known = np.any(vectors != 0, axis=1)
    out = np.zeros_like(vectors)
    if known.any():
        out[known] = transform(vectors[known], vectors[known].mean(axis=0, dtype=np.float64).astype(np.float32))
    return out
