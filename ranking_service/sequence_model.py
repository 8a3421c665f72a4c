"""A trained sequence model as ranking uses it: from the items somebody chose lately to a vector of what comes next.

Item vectors live in a derived space of retrieval, which finds candidates for the user's vector. Ranking keeps those of
the items that were there at the training, to read histories with; a later item is read by the projection of its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ranking_service.candidate import Floats, Halves


class UserEncoder(Protocol):
    """The user side of the model."""

    max_length: int

    def encode(self, histories: Sequence[Floats]) -> Floats:
        """User vectors, shape (histories, d), of item vectors, oldest first, shape (length, d) each."""
        ...


@dataclass(frozen=True)
class SequenceModel:
    """A model and what it needs.

    Attributes:
        encoder: The user side.
        space: Name of the derived space of item vectors.
        version: Of that space.
        fingerprint: Of its vectors.
        rows: Row of each item of the training, by id.
        item_vectors: Shape (items, d).
        projection: Makes the vector of any other item of its semantic vector, shape (semantic d, d); without rows: the
            model knows ids only.
    """

    encoder: UserEncoder
    space: str
    version: int
    fingerprint: str
    rows: Mapping[str, int]
    item_vectors: Halves
    projection: Floats

    def user_vector(self, item_ids: Sequence[str], semantic: Mapping[str, Floats]) -> Floats | None:
        """What somebody wants next, shape (d,); None when nothing of the history can be read.

        Args:
            item_ids: Items chosen, latest first.
            semantic: Semantic vectors of items, by id.
        """
        history: list[Floats] = []
        for item_id in item_ids:
            row, text = self.rows.get(item_id), semantic.get(item_id)
            if row is not None:
                history.append(self.item_vectors[row].astype(np.float32))
            elif text is not None and text.shape[0] == self.projection.shape[0] and text.any():
                history.append(text @ self.projection)
            if len(history) == self.encoder.max_length:
                break
        if not history:
            return None
        vector: Floats = self.encoder.encode([np.stack(history[::-1])])[0]
        return vector
