"""What makes two items alike: what they say and what kind of thing they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ranking_service.candidate import Floats

# Of the categories. With vectors alone, lists of films became no more varied in genre than in plot (measured: half).
_SHARE = 0.3


def with_categories(vectors: Floats, categories: Sequence[Sequence[str]]) -> Floats:
    """Vectors whose cosine is .7 of the items' cosine and .3 of the cosine of their sets of categories.

    Args:
        vectors: Shape (n, d), rows of length 1 or 0.
        categories: Of each row. Rows without any are alike in nothing there.

    Returns:
        Shape (n, d + number of different categories); `vectors` itself where there is no category.
    """
    numbers: dict[str, int] = {}
    columns = [numbers.setdefault(category, len(numbers)) for named in categories for category in named]
    if not columns:
        return vectors
    counts = np.fromiter(map(len, categories), dtype=np.intp, count=len(categories))
    d = vectors.shape[1]
    both = np.zeros((len(vectors), d + len(numbers)), dtype=np.float32)
    np.multiply(vectors, np.float32((1 - _SHARE) ** 0.5), out=both[:, :d])
    lengths = (_SHARE / np.maximum(counts, 1)) ** 0.5
    both[np.repeat(np.arange(len(counts)), counts), np.array(columns) + d] = np.repeat(lengths, counts)
    return both
