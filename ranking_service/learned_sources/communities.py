"""Users in groups of like mind, and what each group likes.

A group is a direction in the semantic space, found among the mean vectors of what users chose. So somebody belongs to
groups by what they chose and, without having chosen anything, by what they say of themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranking_service.candidate import Floats, Ints

_NEAREST = 3
# Cosines differ by hundredths: a group that is nearer by this much counts e times as much.
_TEMPERATURE = 0.05


@dataclass(frozen=True)
class Communities:
    """Groups and their items.

    Attributes:
        centres: Unit vectors, shape (k, d).
        mean: Of the semantic space: subtracted from a text's vector before it is compared. Shape (d,).
        fingerprint: Of the model that vectors must come from.
        item_ids: Of the items below. Length n.
        rows: Place by item id.
        starts: Where each group's items begin in `items` and `values`, and where the last ends. Shape (k + 1,).
        items: Items of a group, best first.
        values: How much each is liked there, above 0.
        of_likes: Whether they help users who have chosen something; the others they help wherever there is a text.
    """

    centres: Floats
    mean: Floats
    fingerprint: str
    item_ids: Sequence[str]
    rows: Mapping[str, int]
    starts: NDArray[np.int64]
    items: Ints
    values: Floats
    of_likes: bool

    def scores(self, direction: Floats) -> Floats | None:
        """What the groups nearest to somebody like, shape (n,); None for a direction of another space or of none.

        Args:
            direction: As the space compares vectors: centred; any length. Shape (d,).
        """
        length = float(np.linalg.norm(direction))
        if direction.shape[0] != self.centres.shape[1] or length < 1e-6:
            return None
        closeness = self.centres @ (direction / length)
        nearest = np.argsort(-closeness, kind="stable")[:_NEAREST]
        shares = np.exp((closeness[nearest] - closeness[nearest[0]]) / _TEMPERATURE)
        shares /= shares.sum()
        out = np.zeros(len(self.item_ids), np.float32)
        for group, share in zip(nearest.tolist(), shares.tolist(), strict=True):
            part = slice(self.starts[group], self.starts[group + 1])
            out[self.items[part]] += np.float32(share) * self.values[part]
        return out

    def of_text(self, vector: Floats) -> Floats:
        """The direction of a text's vector, which comes as the model made it."""
        if vector.shape != self.mean.shape:
            return vector
        direction: Floats = vector / max(float(np.linalg.norm(vector)), 1e-12) - self.mean
        return direction
