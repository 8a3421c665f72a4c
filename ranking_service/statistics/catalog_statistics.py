"""All statistics of one catalogue: the pairs, the folds on them, and the sequence they reflect."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from ranking_service.statistics.neighbours import Neighbours
from ranking_service.statistics.pair_table import NOTHING, PairTable
from ranking_service.statistics.popularity import Popularity
from ranking_service.statistics.transitions import Transitions
from ranking_service.users.event import Erasure, LogEntry
from ranking_service.users.event_types import RULES, Repeat

# Readers wait for at most so many entries of a large batch.
_ENTRIES_PER_LOCK = 32
_MAX_GIVEN_ITEMS = 64


class CatalogStatistics:
    """Applies the event log in sequence order and answers questions; safe to use from several threads."""

    def __init__(self, popularity_half_life_s: float) -> None:
        self._lock = threading.Lock()
        self.popularity_half_life_s = popularity_half_life_s
        self.pairs = PairTable()
        self.popularity = Popularity(self.pairs, popularity_half_life_s)
        self.transitions = Transitions(self.pairs)
        self.neighbours = Neighbours(self.pairs, self.transitions)
        self.sequence = 0

    @property
    def lock(self) -> threading.Lock:
        """Held while the state is read or changed."""
        return self._lock

    def apply(self, entries: Sequence[LogEntry | Erasure], sequence: int) -> None:
        """Folds entries in; afterwards the state reflects the log up to `sequence`.

        The same function for live events, for a replay and for a recount.
        """
        for start in range(0, len(entries), _ENTRIES_PER_LOCK):
            chunk = entries[start : start + _ENTRIES_PER_LOCK]
            with self._lock:
                for entry in chunk:
                    if isinstance(entry, Erasure):
                        self._erase(entry.user_key)
                    else:
                        self._fold(entry)
                # With the state, under the lock: a snapshot taken between two chunks goes on from here.
                self.sequence = chunk[-1].sequence
        self.sequence = sequence

    def popular(self, now: float, limit: int) -> list[tuple[str, float]]:
        """See `Statistics.popular`."""
        with self._lock:
            top = self.popularity.top(now, limit)
            return [(self.pairs.item_ids[item], amount) for item, amount in top]

    def following(self, weighted_items: Mapping[str, float], limit: int) -> list[tuple[str, float]]:
        """See `Statistics.transitions`. Of more than 64 given items those with the largest weights count."""
        with self._lock:
            best = self.transitions.following(self._known(weighted_items), limit)
            return [(self.pairs.item_ids[item], score) for item, score in best]

    def liked_by_neighbours(
        self, weighted_items: Mapping[str, float], user_key: int, limit: int
    ) -> list[tuple[str, float]]:
        """See `Statistics.liked_by_neighbours`. Of more than 64 given items those with the largest weights count."""
        with self._lock:
            best = self.neighbours.liked(self._known(weighted_items), user_key, limit)
            return [(self.pairs.item_ids[item], score) for item, score in best]

    def users_of(self, item_ids: Sequence[str]) -> list[int]:
        """See `Statistics.users_of`."""
        with self._lock:
            by_item = self.pairs.by_item  # nobody is at NOTHING
            return [len(by_item[self.pairs.find_item(item_id)]) for item_id in item_ids]

    def _known(self, weighted_items: Mapping[str, float]) -> list[tuple[int, float]]:
        """Numbers and weights of the heaviest items that any event named."""
        positive = [(item_id, weight) for item_id, weight in weighted_items.items() if weight > 0.0]
        heaviest = sorted(positive, key=lambda given: -given[1])[:_MAX_GIVEN_ITEMS]
        given = [(self.pairs.find_item(item_id), weight) for item_id, weight in heaviest]
        return [pair for pair in given if pair[0] != NOTHING]

    def _fold(self, entry: LogEntry) -> None:
        rule = RULES[entry.event_type]
        strength = rule.strength(entry.value)
        # A neutral opinion counts too: it replaces the one before.
        if not entry.item_id or (strength == 0.0 and rule.repeat is not Repeat.REPLACES):
            return
        slot = self.pairs.slot(self.pairs.item_number(entry.item_id), entry.user_key, entry.sequence)
        self.popularity.add(slot, entry, strength)
        if strength > 0.0:
            self.transitions.add(slot, entry)

    def _erase(self, user_key: int) -> None:
        self.transitions.remove_user(user_key)
        self.popularity.refresh_items(self.pairs.remove_user(user_key))
