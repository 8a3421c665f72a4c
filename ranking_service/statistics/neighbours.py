"""What users alike chose: user-based collaborative filtering (Resnick et al. 1994) on the pairs of this second.

    overlap(v) = sum over given items i that v chose of  weight(i) * log(1 + users / n(i))
    alike(v)   = overlap(v) / (n(v) + 5)^.5
    score(j)   = sum over the 50 users most alike who chose j of alike(v)

`n(i)` counts the users of an item, `n(v)` the items of a user. Only positive events count. Asked are the latest users
of each given item, so the work is bounded and what lately came up comes up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ranking_service.statistics.pair_table import NOTHING, PairTable
from ranking_service.statistics.transitions import Transitions

NEIGHBOURS = 50
SHRINKAGE = 5.0
_LATEST_USERS = 192
_CONSIDERED = 256
# Of a neighbour with more items the latest recorded so many count.
_MOST_ITEMS = 200


class Neighbours:
    """Neighbours in one catalogue.

    Args:
        pairs: The catalogue's pairs.
        transitions: Knows which pairs are positive.
    """

    def __init__(self, pairs: PairTable, transitions: Transitions) -> None:
        self._pairs, self._transitions = pairs, transitions

    def liked(self, weighted_items: Sequence[tuple[int, float]], user_key: int, limit: int) -> list[tuple[int, float]]:
        """Item numbers by the score above, best first, without the given ones.

        Args:
            weighted_items: Different item numbers with positive weights.
            user_key: Who is no neighbour of theirs; 0: nobody.
            limit: Items wanted.
        """
        users, alike = self._most_alike(weighted_items, user_key)
        if not len(users):
            return []
        parts = [np.frombuffer(self._pairs.by_user[user], np.int32)[-_MOST_ITEMS:] for user in users.tolist()]
        slots = np.concatenate(parts)
        weights = np.repeat(alike, [len(part) for part in parts])
        positive = self._transitions.is_positive(slots)
        items = self._pairs.item.data[slots[positive]]
        scores = np.bincount(items, weights=weights[positive], minlength=self._pairs.item_count)
        scores[NOTHING] = 0.0
        scores[[item for item, _ in weighted_items]] = 0.0
        found = np.flatnonzero(scores > 0.0)
        if len(found) > limit:
            found = np.sort(found[np.argpartition(-scores[found], limit - 1)[:limit]])
        best = found[np.argsort(-scores[found], kind="stable")]
        return list(zip(best.tolist(), scores[best].tolist(), strict=True))

    def _most_alike(
        self, weighted_items: Sequence[tuple[int, float]], user_key: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        everybody = len(self._pairs.by_user)
        keys, weights = [], []
        for item, weight in weighted_items:
            users = self._pairs.by_item[item]
            slots = np.fromiter(islice(reversed(users.values()), _LATEST_USERS), np.int32)
            slots = slots[self._transitions.is_positive(slots)]
            keys.append(self._pairs.user.data[slots])
            weights.append(np.full(len(slots), weight * np.log1p(everybody / max(len(users), 1))))
        if not keys:
            return np.empty(0, np.int64), np.empty(0)
        users_of_all, place = np.unique(np.concatenate(keys), return_inverse=True)
        overlap = np.bincount(place, weights=np.concatenate(weights), minlength=len(users_of_all))
        overlap[users_of_all == user_key] = 0.0
        found = np.flatnonzero(overlap > 0.0)
        if len(found) > _CONSIDERED:
            found = found[np.argpartition(-overlap[found], _CONSIDERED - 1)[:_CONSIDERED]]
        users_of_all, overlap = users_of_all[found], overlap[found]
        lengths = np.array([len(self._pairs.by_user[user]) for user in users_of_all.tolist()], np.float64)
        alike = overlap / np.sqrt(lengths + SHRINKAGE)
        order = np.lexsort((users_of_all, -alike))[:NEIGHBOURS]
        return users_of_all[order], alike[order]
