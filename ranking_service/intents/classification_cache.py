"""What texts were found to be, so that a warm text costs no call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ranking_service.vector_cache import LruCache


class ClassificationCache:
    """Probabilities of labels, by version of the labels and hash of the text (which is not kept).

    Those of one model only: probabilities of two models are not comparable.
    """

    def __init__(self, capacity: int) -> None:
        self._entries: LruCache[tuple[str, bytes], Mapping[str, float]] = LruCache(capacity, "classifications")
        self._fingerprint = ""

    def get(self, version: str, text: str) -> Mapping[str, float] | None:
        """The probability of each label; None: not known."""
        return self._entries.get((version, _digest(text)))

    def put(self, version: str, text: str, probabilities: Mapping[str, float], fingerprint: str) -> None:
        """Keeps what the model of this fingerprint said; forgets what another one did."""
        if fingerprint != self._fingerprint:
            self._entries.clear()
            self._fingerprint = fingerprint
        self._entries.put((version, _digest(text)), probabilities)

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
