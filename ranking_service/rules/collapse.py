"""Near-duplicates: of candidates that are alike the best stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ranking_service.candidate import Flags, Floats, Ints

# Cosines of equal vectors differ from 1 by rounding.
_ROUNDING = 1e-4


def alike(left: Floats, right: Floats, similarity: float) -> Flags:
    """Which rows of one matrix are near-duplicates of which rows of another, shape (len(left), len(right)).

    Rows are normalised first: they come as FLOAT16. A zero row is like nothing, itself included.
    """
    near: Flags = _unit(left) @ _unit(right).T >= similarity - _ROUNDING
    return near


def duplicates(
    order: Ints,
    vectors: Floats,
    rules: Sequence[tuple[Flags, float]],
    first: Iterable[int] = (),
    gone: Flags | None = None,
) -> Flags:
    """Rows that do not stay, shape (n,): those alike to a row that stays and comes earlier.

    Args:
        order: All rows, best first.
        vectors: Shape (n, d).
        rules: For each rule the rows that it is about, and the cosine from which two of them are the same.
        first: Rows that stay in any case, before all others, also where they are alike to each other.
        gone: Rows that do not stay in any case, shape (n,).
    """
    n = len(vectors)
    dropped = np.zeros(n, dtype=bool) if gone is None else gone.copy()
    unit = _unit(vectors)
    cosines = unit @ unit.T
    same = np.zeros((n, n), dtype=bool)
    for matches, similarity in rules:
        same |= (cosines >= similarity - _ROUNDING) & matches & matches[:, None]
    np.fill_diagonal(same, False)
    kept = list(first)
    for row in kept:
        dropped |= same[row]
    dropped[kept] = False
    protected = np.zeros(n, dtype=bool)
    protected[kept] = True
    # Hardly any row is like another: only those few need a look.
    has_likes = np.asarray(same.any(axis=1))
    for row in order[has_likes[order]].tolist():
        if not dropped[row] and not protected[row]:
            protected[row] = True
            dropped |= same[row] & ~protected
    return dropped


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit
