"""Bounded caches that keep a warm user from costing an encoder call or a second retrieval call."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from ranking_service import metrics
from ranking_service.candidate import Floats

# An item that was missing is looked for again after this time.
_MISSING_AGE_S = 2.0

K = TypeVar("K")
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """The entries used last, at most `capacity`. Used on the event loop only, so it needs no lock."""

    def __init__(self, capacity: int, name: str) -> None:
        self._capacity = capacity
        # Looked up once: a list asks a cache a hundred times.
        self._hits = metrics.CACHE_LOOKUPS.labels(name, "hit")
        self._misses = metrics.CACHE_LOOKUPS.labels(name, "miss")
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The entry, now the one used last; None when there is none."""
        value = self._entries.get(key)
        if value is None:
            self._misses.inc()
        else:
            self._entries.move_to_end(key)
            self._hits.inc()
        return value

    def put(self, key: K, value: V) -> None:
        """Keeps an entry, dropping those used longest ago."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()


@dataclass(frozen=True, slots=True)
class TextVector:
    """A text as the encoder sees it. `vector` has length 1; `fingerprint` names the space."""

    vector: Floats
    fingerprint: str


class TextVectorCache:
    """Vectors of queries and profiles, by space fingerprint, role and hash of the text (which is not kept)."""

    def __init__(self, capacity: int) -> None:
        self._entries: LruCache[tuple[str, int, bytes], TextVector] = LruCache(capacity, "text_vectors")
        self._fingerprint = ""

    def get(self, role: int, text: str) -> TextVector | None:
        """The vector of a text in the space that the encoder had when it last answered."""
        return self._entries.get((self._fingerprint, role, _digest(text)))

    def put(self, role: int, text: str, vector: TextVector) -> None:
        """Keeps a vector. Its fingerprint becomes the current one: vectors of an older model are never found again."""
        self._fingerprint = vector.fingerprint
        self._entries.put((vector.fingerprint, role, _digest(text)), vector)

    def clear(self) -> None:
        """Forgets everything: the encoder and the catalogue turned out to have different models."""
        self._entries.clear()


@dataclass(frozen=True, slots=True)
class KnownItem:
    """What is remembered of an item that a user acted on.

    Attributes:
        vector: As the semantic space compares it; shape (d,), of length 1 or 0.
        space: The space the vector is from, see `search_request.space_of`.
        revision: The item's revision at that time.
        title: For reasons.
        exists: False: the catalogue has no such item; remembered for a few seconds.
        stale_at: Monotonic seconds after which it is read again.
        facts: What a bundle's ranker reads of it, see `attribute_features.item_facts`; empty: nothing was asked for.
        facts_key: Tells by which spec the facts were read.
    """

    vector: Floats
    space: str
    revision: int
    title: str
    exists: bool
    stale_at: float
    facts: bytes = b""
    facts_key: str = ""


class ItemCache:
    """Items users acted on, by catalogue, space and item. A newer revision replaces the older one.

    An entry may be up to `max_age_s` behind the catalogue. It decides how a history is grouped and worded; what is
    compared with the candidates are the examples' own vectors at the moment of the search, which retrieval takes.
    """

    def __init__(self, capacity: int, max_age_s: float) -> None:
        self._entries: LruCache[tuple[str, str, str], KnownItem] = LruCache(capacity, "items")
        self._max_age_s = max_age_s
        self._spaces: dict[str, str] = {}

    def find(self, catalog: str, item_ids: Iterable[str], facts_key: str = "") -> dict[str, KnownItem]:
        """Those that are known and fresh in the catalogue's present space, with facts by a spec where one is given."""
        space, now = self._spaces.get(catalog, ""), time.monotonic()
        found = {}
        for item_id in item_ids:
            known = self._entries.get((catalog, space, item_id))
            if known is None or known.stale_at <= now:
                continue
            if not facts_key or known.facts_key == facts_key or not known.exists:
                found[item_id] = known
        return found

    def remember(
        self,
        catalog: str,
        space: str,
        item_id: str,
        revision: int,
        title: str,
        vector: Floats,
        facts: bytes = b"",
        facts_key: str = "",
    ) -> None:
        """Keeps what retrieval said about an item."""
        self._spaces[catalog] = space
        stale_at = time.monotonic() + self._max_age_s
        known = KnownItem(vector, space, revision, title, True, stale_at, facts, facts_key)
        self._entries.put((catalog, space, item_id), known)

    def remember_missing(self, catalog: str, space: str, item_id: str) -> None:
        """Keeps, for a moment, that there is no such item: events on unknown items must not cost a call each time."""
        nothing = np.zeros(1, dtype=np.float32)
        stale_at = time.monotonic() + min(_MISSING_AGE_S, self._max_age_s)
        self._entries.put((catalog, space, item_id), KnownItem(nothing, space, 0, "", False, stale_at))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
