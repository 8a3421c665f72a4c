"""A backend without a model: vectors from a hash of the token ids, latency and failures as told. For tests."""

from __future__ import annotations

import hashlib
import threading
import time

import numpy as np
from numpy.typing import NDArray


class FakeBackend:
    """Behaves like a model: the vector of a text depends on its tokens alone, not on its batch or padding.

    Args:
        dimensions: Components of a vector.
        seconds_per_token: Sleeps this long for each padded token.

    Attributes:
        batches: (texts, padded length) of every batch computed.
        gate: While cleared, `encode` waits; lets a test fill the queue.
        failure: Raised by `encode` while set.
    """

    provider = "FakeExecutionProvider"

    def __init__(self, dimensions: int = 8, seconds_per_token: float = 0.0) -> None:
        self.dimensions = dimensions
        self.seconds_per_token = seconds_per_token
        self.batches: list[tuple[int, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def encode(self, token_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Unit vectors, [texts, dimensions]."""
        self.batches.append((token_ids.shape[0], token_ids.shape[1]))
        self.gate.wait(timeout=30)
        if self.failure is not None:
            raise self.failure
        if self.seconds_per_token:
            time.sleep(self.seconds_per_token * token_ids.size)
        return np.stack(
            [self.vector_of(ids[mask == 1]) for ids, mask in zip(token_ids, attention_mask, strict=True)]
        ).astype(np.float32)

    def vector_of(self, token_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vector of one text from its token ids without padding."""
        digest = hashlib.blake2b(np.asarray(token_ids, dtype="<i8").tobytes(), digest_size=8).digest()
        vector = np.random.default_rng(int.from_bytes(digest, "little")).normal(size=self.dimensions)
        return (vector / np.linalg.norm(vector)).astype(np.float32)
