"""What turns the sources' opinions into one relevance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.scorers.weighted_sum import Scores, weighted_sum
from ranking_service.taste import Taste

Weights = Callable[[Taste], Mapping[SourceKind, float]]
"""How much each source counts for a taste."""


@dataclass(frozen=True, slots=True)
class Opinions:
    """What is thought of a pool.

    Attributes:
        evidence: Of each source that has an opinion, shape (n,), any scale, higher is better.
        resolutions: Of each of these sources: standard deviation below which differences mean nothing.
        nudge: Small corrections in units of z-scores, shape (n,).
        newness: Counts, when first asked, 1 / (1 + users who acted on the candidate), shape (n,): 1 where what users
            did cannot speak for it yet.
            None: unknown.
    """

    evidence: Mapping[SourceKind, Floats]
    resolutions: Mapping[SourceKind, float]
    nudge: Floats
    newness: Callable[[], Floats] | None = None


class Scorer(Protocol):
    """Scores candidates. Thread-safe."""

    def score(self, taste: Taste, pool: Pool, opinions: Opinions) -> Scores:
        """The relevance of every candidate and what it is made of."""
        ...


class BuiltinScorer:
    """The weighted sum with the weights of the house: what serves until something was learned."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def score(self, taste: Taste, pool: Pool, opinions: Opinions) -> Scores:
        """See `Scorer`."""
        house = self._weights(taste)
        weights = taste.understood.weights(house, house)
        return weighted_sum(pool, opinions.evidence, opinions.resolutions, weights, opinions.nudge)
