"""What every source is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.taste import Taste
from ranking_service.vector_cache import TextVector


@dataclass(frozen=True, slots=True)
class Ask:
    """A query for retrieval.

    Attributes:
        name: Unique in the request.
        like: A vector, or weighted example items (negative: unlike them).
        limit: Hits wanted.
        created_since: Only items created from this moment on, Unix seconds; None: of any age.
        space: Of the vectors compared.
        version: Of the space; 0: the published one.
        score_all: Whether every candidate of the reply is scored by this query, whoever found it.
    """

    name: str
    like: TextVector | tuple[tuple[str, float], ...]
    limit: int
    created_since: float | None = None
    space: str = "semantic"
    version: int = 0
    score_all: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a source wants for one request.

    Attributes:
        asks: Queries for retrieval.
        proposals: Item ids found without retrieval, with the source's score, best first.
        score_of: Scores any items, by id, NaN where the source knows nothing: for sources that look at all items at
            once and propose the best.
    """

    asks: tuple[Ask, ...] = ()
    proposals: tuple[tuple[str, float], ...] = ()
    score_of: Callable[[Sequence[str]], Floats] | None = None


class Source(Protocol):
    """One place candidates come from."""

    kind: SourceKind
    # Standard deviation below which differences of the evidence mean nothing; keeps noise from being blown up.
    resolution: float

    def plan(self, taste: Taste) -> Plan:
        """What to ask; an empty plan when the source has nothing to say about this user. Pure and fast (below 1 ms)."""
        ...

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """How good each candidate of the whole pool is in this source's eyes, also those that others proposed.

        Shape (n,), any scale, higher is better; None when the source has no opinion.
        """
        ...
