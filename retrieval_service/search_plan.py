"""How to answer one query: with the graph, with the graph and a filter after it, or exactly. Pure.

Measured (ratios in docs/retrieval.md): comparing exactly is cheaper than the graph while the filter leaves at most a
few thousand vectors or about a twentieth of them; above that the graph gives more hits than asked for and the filter
follows. A callback into Python per neighbour is 8 to 400 times slower and is never used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum


class Plan(Enum):
    """How a query is answered; the values are those of the contract's SearchPlan."""

    GRAPH = 1
    GRAPH_OVERFETCH = 2
    EXACT = 3
    EMPTY = 4


_EXACT_ROWS = 4096
_EXACT_SHARE = 0.05
_OVERFETCH = 1.5
# Asking a graph for more than this share costs more than comparing with everything.
_MAX_FETCH_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Choice:
    """A plan, and how many vectors the graph is asked for at first (0: it is not asked)."""

    plan: Plan
    fetch: int = 0


def choose(*, live: int, allowed: int, denied: int, limit: int, has_graph: bool, exact: bool) -> Choice:
    """Chooses by counts only, so the same state and query always get the same plan.

    Args:
        live: Vectors in the index.
        allowed: Vectors that pass the filter; `live` when there is none.
        denied: Vectors that are excluded one by one, beyond the filter.
        limit: Hits wanted.
        has_graph: Whether there is a graph.
        exact: Whether the caller insists on exactness.
    """
    if live == 0 or allowed == 0:
        return Choice(Plan.EMPTY)
    if exact or not has_graph or allowed <= max(_EXACT_ROWS, _EXACT_SHARE * live):
        return Choice(Plan.EXACT)
    restricted = allowed < live or denied > 0
    fetch = limit if not restricted else math.ceil(limit * _OVERFETCH * live / allowed) + min(denied, limit)
    if fetch > max_fetch(live):
        return Choice(Plan.EXACT)
    return Choice(Plan.GRAPH_OVERFETCH if restricted else Plan.GRAPH, fetch)


def max_fetch(live: int) -> int:
    """The most vectors worth asking a graph for."""
    return max(_EXACT_ROWS, math.floor(_MAX_FETCH_SHARE * live))
