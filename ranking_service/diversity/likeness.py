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
    rows: list[int] = []
    columns: list[int] = []
    lengths: list[float] = []
    for row, named in enumerate(categories):
        if named:
            rows.extend([row] * len(named))
            columns.extend([numbers.setdefault(category, len(numbers)) for category in named])
            lengths.extend([len(named) ** -0.5] * len(named))
    if not numbers:
        return vectors
    d = vectors.shape[1]
    both = np.zeros((len(vectors), d + len(numbers)), dtype=np.float32)
    np.multiply(vectors, (1 - _SHARE) ** 0.5, out=both[:, :d])
    both[rows, np.array(columns) + d] = np.array(lengths, dtype=np.float32) * np.float32(_SHARE**0.5)
    return both
