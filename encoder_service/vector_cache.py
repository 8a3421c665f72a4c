"""Vectors of texts seen lately, by a hash of the prompted text. Bounded by bytes."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# What an entry costs beside its vector: key, tuple, array header, dictionary slot (measured with sys.getsizeof).
_ENTRY_OVERHEAD_BYTES = 400


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text's vector and how it came about.

    Attributes:
        vector: [dimensions], owned by this object.
        token_count: After prompt and truncation.
        truncated: Whether something was cut.
    """

    vector: NDArray[np.float32]
    token_count: int
    truncated: bool


def text_key(prompted_text: str) -> bytes:
    """128 bits of BLAKE2b of the text with its prompt."""
    return hashlib.blake2b(prompted_text.encode(), digest_size=16).digest()


class VectorCache:
    """Least recently used goes first. For one thread.

    Args:
        max_bytes: Bound, counting vectors and bookkeeping; 0 switches the cache off.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, EncodedText] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> EncodedText | None:
        """The entry, which becomes the most recent."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: bytes, entry: EncodedText) -> None:
        """Stores an entry and drops the oldest ones that no longer fit."""
        before = self._entries.pop(key, None)
        if before is not None:
            self.bytes -= _size(before)
        self._entries[key] = entry
        self.bytes += _size(entry)
        while self.bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= _size(oldest)


def _size(entry: EncodedText) -> int:
    return entry.vector.nbytes + _ENTRY_OVERHEAD_BYTES
