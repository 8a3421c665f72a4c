"""Several interests of one user: similar recent items together, weighed by how much and how lately they were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ranking_service.candidate import Floats

# Clusters closer than this (mean cosine after centring, where unrelated items lie around 0) are one interest.
_SAME_INTEREST = 0.25


@dataclass(frozen=True, slots=True)
class Interest:
    """Items that belong together.

    Attributes:
        members: Rows of the items, heaviest first.
        weight: Share of this interest in the sum of all weights, in (0, 1].
    """

    members: tuple[int, ...]
    weight: float


def find_interests(vectors: Floats, weights: Sequence[float], at_most: int) -> tuple[Interest, ...]:
    """Groups items by average-link clustering, as PinnerSage (Pal et al. 2020) does with Ward's method.

    Args:
        vectors: Shape (n, d), rows of length 1; a zero row (no vector known) joins the heaviest interest.
        weights: Positive, length n.
        at_most: The heaviest interests to keep.

    Returns:
        Interests, heaviest first. Every row is in exactly one cluster; clusters beyond `at_most` are left out.
    """
    has_vector = (vectors * vectors).sum(axis=1) > 0.5 if vectors.size else np.zeros(len(weights), dtype=bool)
    known, unknown = np.flatnonzero(has_vector).tolist(), np.flatnonzero(~has_vector).tolist()
    clusters = [[known[position] for position in cluster] for cluster in _average_link(vectors[known])] if known else []
    clusters.sort(key=lambda cluster: -sum(weights[row] for row in cluster))
    if unknown:
        clusters = [clusters[0] + unknown, *clusters[1:]] if clusters else [unknown]
    total = sum(weights)
    return tuple(
        Interest(
            tuple(sorted(cluster, key=lambda row: -weights[row])),
            sum(weights[row] for row in cluster) / total,
        )
        for cluster in clusters[:at_most]
    )


def _average_link(vectors: Floats) -> list[list[int]]:
    """Merges the closest two clusters until none are close enough."""
    n = len(vectors)
    clusters: list[list[int]] = [[row] for row in range(n)]
    sizes = [1] * n
    closeness = (vectors @ vectors.T).astype(np.float32)
    np.fill_diagonal(closeness, -np.inf)
    for _ in range(n - 1):
        a, b = divmod(int(closeness.argmax()), n)
        if closeness[a, b] < _SAME_INTEREST:
            break
        merged = (closeness[a] * sizes[a] + closeness[b] * sizes[b]) / (sizes[a] + sizes[b])
        closeness[a], closeness[:, a] = merged, merged
        closeness[b], closeness[:, b] = -np.inf, -np.inf
        closeness[a, a] = -np.inf
        clusters[a] += clusters[b]
        clusters[b] = []
        sizes[a] += sizes[b]
    return [cluster for cluster in clusters if cluster]
