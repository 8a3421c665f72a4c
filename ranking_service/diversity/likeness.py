"""What makes two items alike: what they say and what kind of thing they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ranking_service.candidate import Floats, Halves

# Of the categories. With vectors alone, lists of films became no more varied in genre than in plot (measured: half).
_SHARE = 0.3


def with_categories(vectors: Floats | Halves, categories: Sequence[Sequence[str]]) -> Floats:
    """Vectors whose cosine is .7 of the items' cosine and .3 of the cosine of their sets of categories.

    Args:
        vectors: Shape (n, d), rows of length 1 or 0, of either precision.
        categories: Of each row. Rows without any are alike in nothing there.

    Returns:
        Shape (n, d + number of different categories); `vectors` alone where there is no category.
    """
    named = [category for of_item in categories for category in of_item]
    if not named:
        return vectors.astype(np.float32, copy=False)
    numbers = {category: number for number, category in enumerate(dict.fromkeys(named))}
    columns = [numbers[category] for category in named]
    counts = np.fromiter(map(len, categories), dtype=np.intp, count=len(categories))
    d = vectors.shape[1]
    both = np.zeros((len(vectors), d + len(numbers)), dtype=np.float32)
    # Reads FLOAT16 piece by piece: a copy in single precision would be as large as the result.
    np.multiply(vectors, np.float32((1 - _SHARE) ** 0.5), out=both[:, :d])
    lengths = (_SHARE / np.maximum(counts, 1)) ** 0.5
    both[np.repeat(np.arange(len(counts)), counts), np.array(columns) + d] = np.repeat(lengths, counts)
    return both
