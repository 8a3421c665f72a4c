"""What an index over vectors can do, whoever implements it. One contract suite runs over every implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Shape (n, dimensions), C order."""
Labels = NDArray[np.int64]
"""Shape (n,)."""


class VectorIndex(Protocol):
    """Finds the vectors with the largest inner product. Vectors come in as they are compared: centred, normalised."""

    def __len__(self) -> int:
        """Vectors that can be found."""
        ...

    def add(self, labels: Labels, vectors: Vectors) -> None:
        """Adds vectors under labels that were never used before."""
        ...

    def remove(self, labels: Labels) -> None:
        """Makes vectors unfindable. Each label is live."""
        ...

    def search(self, query: NDArray[np.float32], limit: int) -> Labels:
        """The labels of the `limit` best vectors, fewer when there are fewer, in no promised order.

        Args:
            query: Shape (dimensions,).
            limit: At least 1.
        """
        ...


class GraphIndex(VectorIndex, Protocol):
    """An index whose structure is worth saving."""

    def save(self, path: Path) -> None:
        """Writes one file and makes sure that it is whole and on the disk."""
        ...
