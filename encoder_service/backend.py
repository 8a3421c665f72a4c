"""What computes vectors from token ids: ONNX Runtime in production, a fake in tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Backend(Protocol):
    """A model ready to compute. Called from one thread at a time."""

    @property
    def dimensions(self) -> int:
        """Components of a vector."""
        ...

    @property
    def provider(self) -> str:
        """The execution provider that computes, such as `CPUExecutionProvider`."""
        ...

    def encode(self, token_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Computes one batch; blocks.

        Args:
            token_ids: [texts, tokens], padded on the right.
            attention_mask: [texts, tokens], 1 for a token and 0 for padding.

        Returns:
            [texts, dimensions], a new array.
        """
        ...


def pad(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of token ids as one padded matrix and its attention mask."""
    longest = max(len(row) for row in rows)
    token_ids = np.full((len(rows), longest), pad_token_id, dtype=np.int64)
    attention_mask = np.zeros((len(rows), longest), dtype=np.int64)
    for i, row in enumerate(rows):
        token_ids[i, : len(row)] = row
        attention_mask[i, : len(row)] = 1
    return token_ids, attention_mask
