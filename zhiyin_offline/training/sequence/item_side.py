"""The item side of a trained model, as numbers that a store of vectors takes. No PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ItemSide:
    """Item vectors; the score of an item is their inner product with the user's vector, and nothing else.

    Attributes:
        item_vectors: Shape (items, dimensions): id part plus text part, or the text part alone of an item that did not
            occur in training. A zero row where `known` is False.
        known: Items that have a vector, shape (items,). The others must not be scored: 0 is a score like any other.
        text_projection: Makes the vector of a new item out of its text vector as retrieval compares it (centred,
            length 1), without a bias; shape (text dimensions, dimensions). No rows: the model knows ids only.
    """

    item_vectors: Floats
    known: NDArray[np.bool_]
    text_projection: Floats

    def of_text(self, text_vectors: Floats) -> Floats:
        """Vectors of items that are known by their text alone, shape (items, dimensions)."""
        return np.asarray(text_vectors @ self.text_projection, np.float32)

    def save(self, path: Path) -> None:
        """Writes a .npz file."""
        with path.open("wb") as file:
            np.savez(file, item_vectors=self.item_vectors, known=self.known, text_projection=self.text_projection)

    @classmethod
    def load(cls, path: Path) -> ItemSide:
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["item_vectors"], arrays["known"], arrays["text_projection"])
