"""What users do next: a sequential item-to-item kNN that every event updates.

    rate(j) = sum over given items i of weight(i) * row(i, j) / (n(i) + 5)^.5
    row(i, j) = sum over users with both: gap^-.5 when j came after i, .3 * gap^-.5 when before
    score(j) = rate(j) / largest rate * u(j) / (u(j) + 5)

A user's sequence holds each item once, at its latest positive event, by (time, sequence); gap is the distance in it, at
most 49; n(i) counts the users of i, u(j) those whose sequence led from a given item to j. Measured on amazon-beauty,
steam and movielens the rate beats published sequence models that see ids alone (docs/decisions).

The last factor is support: what one user did next is an anecdote, however near it stood. It is as if five more users
had been asked who did nothing of the kind. So the scores of a catalogue with few events are small as such, and whoever
compares them must not stretch them to the best again.

No matrix is kept: 100k events of MovieLens make millions of pairs, and pruning them would make the numbers depend on
history. Instead each user's sequence is a linked list over slots, an event relinks one slot, and a query walks 49
steps both ways from the latest users of each given item, all of them at once in numpy. So the sequences are the only
state, erasing a user is unlinking, and a recount gives the same numbers. The walk is bounded: see `following`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ranking_service.statistics.pair_table import NOTHING, PairTable
from ranking_service.users.event import LogEntry

WINDOW = 50
BACKWARD = 0.3
SHRINKAGE = 5.0
SUPPORT = 5.0
_GAP_WEIGHTS = np.arange(1, WINDOW, dtype=np.float64) ** -0.5
_FEWEST_WALKS = 8


class Transitions:
    """Transitions of one catalogue, kept on its pairs.

    Args:
        pairs: The catalogue's pairs.
        max_users_per_item: Latest users of a given item that are walked from; their mean stands for all.
        max_walks: Bound of the users walked from in one query, shared out by the weights of the given items.
    """

    def __init__(self, pairs: PairTable, max_users_per_item: int = 256, max_walks: int = 768) -> None:
        self._pairs = pairs
        self._max_users_per_item = max_users_per_item
        self._max_walks = max_walks
        self._time = pairs.column(np.float64, 0.0)
        self._sequence = pairs.column(np.int64, -1)  # -1: no positive event, not in the list
        self._before = pairs.column(np.int32, NOTHING, derived=True)
        self._after = pairs.column(np.int32, NOTHING, derived=True)
        self._last: dict[int, int] = {}
        # By slot, what `_firsts` writes there; never read before it is written.
        self._mark: NDArray[np.int32] = np.empty(0, np.int32)

    def add(self, slot: int, entry: LogEntry) -> None:
        """Takes one event of positive strength into account; `slot` is that of its user and item."""
        moment = (entry.time, entry.sequence)
        if self._sequence.data[slot] >= 0:
            if moment <= self._moment(slot):
                return
            self._unlink(slot, entry.user_key)
        self._time.data[slot], self._sequence.data[slot] = moment
        self._link(slot, entry.user_key, moment)
        self._pairs.move_to_end(slot, entry.user_key, entry.sequence)

    def is_positive(self, slots: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which pairs have a positive event, shape (n,)."""
        positive: NDArray[np.bool_] = self._sequence.data[slots] >= 0
        return positive

    def remove_user(self, user_key: int) -> None:
        """Forgets the user's sequence; the slots are emptied with the table."""
        self._last.pop(user_key, None)

    def following(self, weighted_items: Sequence[tuple[int, float]], limit: int) -> list[tuple[int, float]]:
        """Item numbers by the score above, in (0, 1), best first, without the given ones.

        Cost: at most `max_walks` users (8 an item at least) times 98 steps, whatever the catalogue holds.

        Args:
            weighted_items: Different item numbers with positive weights.
            limit: Items wanted.
        """
        starts, weights = self._starts(weighted_items)
        if not len(starts):
            return []
        count = self._pairs.item_count
        reached = self._walked(starts)
        items = self._pairs.item.data.take(reached)
        rates = np.zeros(count)
        for direction, share in zip(items, (1.0, BACKWARD), strict=True):
            amounts = np.outer(_GAP_WEIGHTS * share, weights)
            rates += np.bincount(direction.ravel(), weights=amounts.ravel(), minlength=count)
        rates[NOTHING] = 0.0
        rates[[item for item, _ in weighted_items]] = 0.0
        # A slot is one user and one item, so different slots of an item are different users. From the users of a single
        # item no walk meets another.
        each = items.ravel() if len(weighted_items) == 1 else items.ravel().compress(self._firsts(reached.ravel()))
        users = np.bincount(each, minlength=count)
        support = users / (users + SUPPORT)
        return _best_positive(rates / max(float(rates.max()), 1e-300) * support, limit)

    def _walked(self, starts: NDArray[np.int32]) -> NDArray[np.int32]:
        """Slots after and before some, step by step, shape (2, 49, n). Walks that came to their end stay at NOTHING."""
        reached = np.empty((2, WINDOW - 1, len(starts)), np.int32)
        for steps, links in zip(reached, (self._after.data, self._before.data), strict=True):
            at = starts
            for step in steps:
                # Links are slots: nothing is ever clipped. The default looks for wrong ones first, at half of the cost.
                links.take(at, out=step, mode="clip")
                at = step
        return reached

    def rebuild(self) -> None:
        """Links every sequence from the columns, after a snapshot filled them."""
        linked = np.flatnonzero(self._sequence.data >= 0)
        users = self._pairs.user.data[linked]
        order = np.lexsort((self._sequence.data[linked], self._time.data[linked], users))
        linked, users = linked[order], users[order]
        self._before.data[:] = self._after.data[:] = NOTHING
        same_user = users[1:] == users[:-1]
        self._before.data[linked[1:][same_user]] = linked[:-1][same_user]
        self._after.data[linked[:-1][same_user]] = linked[1:][same_user]
        # Of several entries with one key the last stays: the end of the sequence.
        self._last = dict(zip(users.tolist(), linked.tolist(), strict=True))

    def _starts(self, weighted_items: Sequence[tuple[int, float]]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        total = sum(weight for _, weight in weighted_items)
        starts: list[NDArray[np.int32]] = []
        weights: list[NDArray[np.float64]] = []
        for item, weight in weighted_items:
            users = self._pairs.by_item[item]
            share = max(int(self._max_walks * weight / total), _FEWEST_WALKS)
            wanted = min(share, self._max_users_per_item)
            slots = np.fromiter(islice(reversed(users.values()), wanted), np.int32)
            positive = slots[self._sequence.data[slots] >= 0]
            if not len(positive):
                continue
            # The walked users stand for all users of the item.
            users_of_item = len(users) * len(positive) / len(slots)
            scale = weight * users_of_item / len(positive) / (users_of_item + SHRINKAGE) ** 0.5
            starts.append(positive)
            weights.append(np.full(len(positive), scale))
        if not starts:
            return np.empty(0, np.int32), np.empty(0)
        return np.concatenate(starts), np.concatenate(weights)

    def _firsts(self, slots: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Marks one place of each different slot. Takes time in proportion to their number, unlike sorting."""
        if len(self._mark) < len(self._pairs.item.data):
            self._mark = np.empty(len(self._pairs.item.data), np.int32)
        places = np.arange(len(slots), dtype=np.int32)
        self._mark[slots] = places
        firsts: NDArray[np.bool_] = self._mark.take(slots) == places
        return firsts

    def _moment(self, slot: int) -> tuple[float, int]:
        return float(self._time.data[slot]), int(self._sequence.data[slot])

    def _link(self, slot: int, user_key: int, moment: tuple[float, int]) -> None:
        before, after = self._last.get(user_key, NOTHING), NOTHING
        while before != NOTHING and self._moment(before) > moment:
            before, after = int(self._before.data[before]), before
        self._before.data[slot], self._after.data[slot] = before, after
        if before != NOTHING:
            self._after.data[before] = slot
        if after != NOTHING:
            self._before.data[after] = slot
        else:
            self._last[user_key] = slot

    def _unlink(self, slot: int, user_key: int) -> None:
        before, after = int(self._before.data[slot]), int(self._after.data[slot])
        if before != NOTHING:
            self._after.data[before] = after
        if after != NOTHING:
            self._before.data[after] = before
        elif before != NOTHING:
            self._last[user_key] = before
        else:
            del self._last[user_key]


def _best_positive(scores: NDArray[np.float64], limit: int) -> list[tuple[int, float]]:
    positive = np.flatnonzero(scores > 0.0)
    if len(positive) > limit:
        positive = np.sort(positive[np.argpartition(-scores[positive], limit - 1)[:limit]])
    best = positive[np.argsort(-scores[positive], kind="stable")]
    return list(zip(best.tolist(), scores[best].tolist(), strict=True))
