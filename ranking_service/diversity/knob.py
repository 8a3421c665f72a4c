"""One knob for every method: 0 is the most relevant list however alike, 1 the most varied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ranking_service.candidate import Floats
from ranking_service.diversity.dpp import dpp_order
from ranking_service.diversity.mmr import mmr_order
from ranking_service.diversity.msd import msd_order
from ranking_service.query import DEFAULT_DIVERSITY, DiversityMethod

_ORDERS: dict[DiversityMethod, Callable[[Floats, Floats, float, int], Iterator[int]]] = {
    DiversityMethod.MSD: msd_order,
    DiversityMethod.MMR: mmr_order,
    DiversityMethod.DPP: dpp_order,
}


@dataclass(frozen=True, slots=True)
class Knob:
    """What the default of the knob stands for. A training chooses it for its catalogue.

    Attributes:
        weight: In (0, 1): of variety against relevance, where the knob is at its default.
        kept: So many first places are left to relevance alone up to the default; beyond, fewer and fewer.
    """

    weight: float = 0.45
    kept: int = 6

    def weight_at(self, diversity: float) -> float:
        """Weight of variety for a setting of the knob: 0 at 0, `weight` at the default, 1 at 1, rising in between."""
        if diversity <= DEFAULT_DIVERSITY:
            return self.weight * diversity / DEFAULT_DIVERSITY
        return 1.0 - (1.0 - self.weight) * (1.0 - diversity) / (1.0 - DEFAULT_DIVERSITY)

    def kept_at(self, diversity: float) -> int:
        """First places that keep the items of highest relevance; at least one."""
        beyond = max(diversity - DEFAULT_DIVERSITY, 0.0) / DEFAULT_DIVERSITY
        return max(1, round(self.kept - (self.kept - 1) * min(beyond, 1.0)))


HOUSE_KNOB = Knob()


def diverse_order(
    scores: Floats, vectors: Floats, diversity: float, method: DiversityMethod, knob: Knob = HOUSE_KNOB
) -> Iterator[int]:
    """Yields all rows in the order of the list, deterministically; the first k do not depend on how many are read.

    Args:
        scores: Relevance on any scale, sorted falling. Shape (n,).
        vectors: Shape (n, d), rows of length 1 or 0 (0: unlike everything).
        diversity: In [0, 1].
        method: How.
        knob: What the default stands for.
    """
    if method is DiversityMethod.NONE or diversity <= 0 or len(scores) < 3:
        return iter(range(len(scores)))
    kept = min(knob.kept_at(diversity), len(scores))
    return _ORDERS[method](unit_scale(scores), vectors, knob.weight_at(diversity), kept)


def unit_scale(scores: Floats) -> Floats:
    """Scores moved and stretched to [0, 1]; equal scores all become 1."""
    low, high = float(scores.min()), float(scores.max())
    if high - low < 1e-9:
        return np.ones(len(scores), dtype=np.float32)
    # In double precision: a caller's scores may lie as far apart as single precision reaches.
    scores = scores.astype(np.float64)
    return ((scores - low) / (high - low)).astype(np.float32)
