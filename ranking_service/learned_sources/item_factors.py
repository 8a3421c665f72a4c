"""Item factors of a matrix factorisation, and a user's, made of what was chosen up to this second (fold-in).

    user = (Y'Y + (c - 1) Yu'Yu + r I)^-1 (c Yu' 1)          (Hu, Koren, Volinsky 2008)

with Y all item factors and Yu those of the user's items; Y'Y does not depend on the user. Every item is scored by one
product: half a millisecond for 100,000 items of 64 factors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ranking_service.candidate import Doubles, Floats


@dataclass(frozen=True)
class ItemFactors:
    """A factorisation.

    Attributes:
        item_ids: By row. Length n.
        rows: Row by item id.
        factors: Shape (n, f).
        regularization: r above.
        confidence: c above: weight of a chosen item, where one that was not chosen weighs 1.
        decay: The confidence of an item of the history by that of the item after it, in (0, 1].
    """

    item_ids: Sequence[str]
    rows: Mapping[str, int]
    factors: Floats
    regularization: float
    confidence: float
    decay: float

    @cached_property
    def unobserved(self) -> Doubles:
        """Y'Y + r I, shape (f, f)."""
        squared: Doubles = self.factors.T.astype(np.float64) @ self.factors
        return squared + self.regularization * np.eye(self.factors.shape[1])

    def scores(self, latest_first: Sequence[str]) -> Floats | None:
        """Inner product of every item with the user, shape (n,); None when none of the items is known."""
        known = [(self.rows[i], self.decay**place) for place, i in enumerate(latest_first) if i in self.rows]
        if not known:
            return None
        chosen = self.factors[[row for row, _ in known]].astype(np.float64)
        # Above 1 by what the event adds, which fades with its place.
        confidence = 1.0 + (self.confidence - 1.0) * np.array([weight for _, weight in known])
        weighed = self.unobserved + (chosen.T * (confidence - 1.0)) @ chosen
        user = np.linalg.solve(weighed, chosen.T @ confidence)
        out: Floats = self.factors @ user.astype(np.float32)
        return out
