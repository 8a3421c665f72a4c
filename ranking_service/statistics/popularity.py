"""Time-decayed popularity as an exact fold of the event log.

    popularity(item, now) = sum over users of clip(w, -C * 2^-(now - last)/h, +C * 2^-(now - last)/h)
    w = sum of s * 2^-(now - t)/h over the user's events on the item

s is the signed strength of the event-type table, t its time, h the half-life, C the most one user can weigh on one
item and `last` the time of the user's last event there. Of the opinions (types that `replace`) only the latest counts.

Everything decays alike, so the order of items does not depend on `now`, and the fold keeps the numbers as if `now`
were a fixed moment: no clock ticks, and events may come in any order. The fixed moment moves on by whole half-lives
before the numbers grow too large, which multiplies them by a power of two and so rounds nothing.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ranking_service.statistics.pair_table import PairTable
from ranking_service.users.event import LogEntry
from ranking_service.users.event_types import RULES, Repeat

# 2020-01-01: any moment does; this one keeps exponents small for events of our time.
_ORIGIN_S = 1_577_836_800.0
_MAX_EXPONENT = 500.0
_MIN_EXPONENT = -1000.0
_NEVER = -math.inf
# Below this share of the best item's popularity an amount is what rounding leaves of nothing.
_NOTHING = 1e-12


class Popularity:
    """Popularity of the items of one catalogue, kept on its pairs.

    Args:
        pairs: The catalogue's pairs.
        half_life_s: h, in seconds.
        user_bound: C, in strengths: 2 is two purchases.
    """

    def __init__(self, pairs: PairTable, half_life_s: float, user_bound: float = 2.0) -> None:
        self._pairs = pairs
        self._half_life_s = half_life_s
        self._user_bound = user_bound
        self._base = 0.0
        # Exponents are times in half-lives since the origin. Amounts are as of exponent `_base`.
        self._acts = pairs.column(np.float64, 0.0)
        self._last = pairs.column(np.float64, _NEVER)
        self._opinion = pairs.column(np.float64, 0.0)
        self._opinion_exponent = pairs.column(np.float64, _NEVER)
        self._opinion_sequence = pairs.column(np.int64, -1)
        self._weight = pairs.column(np.float64, 0.0)
        self._total: NDArray[np.float64] = np.zeros(1024)
        self._ranking: NDArray[np.int64] | None = None

    def add(self, slot: int, entry: LogEntry, strength: float) -> None:
        """Takes one event into account; `slot` is that of its user and item."""
        exponent = (entry.time - _ORIGIN_S) / self._half_life_s
        if exponent - self._base > _MAX_EXPONENT:
            self._move_base(math.floor(exponent))
        if RULES[entry.event_type].repeat is Repeat.REPLACES:
            known = (float(self._opinion_exponent.data[slot]), int(self._opinion_sequence.data[slot]))
            if (exponent, entry.sequence) > known:
                self._opinion.data[slot] = strength
                self._opinion_exponent.data[slot] = exponent
                self._opinion_sequence.data[slot] = entry.sequence
        else:
            self._acts.data[slot] += strength * self._scale(exponent)
        if exponent > self._last.data[slot]:
            self._last.data[slot] = exponent
        self._weigh(slot)

    def refresh_items(self, items: list[int]) -> None:
        """Sums the given items anew, after a user was taken out of them."""
        for item in items:
            slots = list(self._pairs.by_item[item].values())
            self._total[item] = float(self._weight.data[slots].sum()) if slots else 0.0
        self._ranking = None

    def top(self, now: float, limit: int) -> list[tuple[int, float]]:
        """Item numbers with their popularity at `now` (Unix seconds), best first; only what is popular at all."""
        count = self._pairs.item_count
        if self._ranking is None or len(self._ranking) < min(limit, count):
            self._ranking = _best(self._total[:count], max(limit, 1000))
        chosen = self._ranking[:limit]
        totals = self._total[chosen]
        chosen = chosen[totals > _NOTHING * max(float(totals[0]), 0.0)]
        amounts = self._total[chosen] * self._scale_back((now - _ORIGIN_S) / self._half_life_s)
        return list(zip(chosen.tolist(), amounts.tolist(), strict=True))

    @property
    def base(self) -> float:
        """The exponent that amounts are relative to; a snapshot keeps it beside the columns."""
        return self._base

    def rebuild(self, base: float) -> None:
        """Sums every item from the columns, after a snapshot filled them."""
        self._base = base
        count = self._pairs.item_count
        totals = np.bincount(self._pairs.item.data, weights=self._weight.data, minlength=count)
        self._total = np.concatenate([totals, np.zeros(max(1024, count))])
        self._ranking = None

    def _weigh(self, slot: int) -> None:
        bound = self._user_bound * self._scale(float(self._last.data[slot]))
        amount = float(self._acts.data[slot])
        opinion = float(self._opinion.data[slot])
        if opinion:
            amount += opinion * self._scale(float(self._opinion_exponent.data[slot]))
        weight = min(max(amount, -bound), bound)
        item = int(self._pairs.item.data[slot])
        if item >= len(self._total):
            self._total = np.concatenate([self._total, np.zeros(max(len(self._total), item + 1))])
        self._total[item] += weight - self._weight.data[slot]
        self._weight.data[slot] = weight
        self._ranking = None

    def _scale(self, exponent: float) -> float:
        relative = exponent - self._base
        return 2.0**relative if relative > _MIN_EXPONENT else 0.0

    def _scale_back(self, exponent: float) -> float:
        return float(2.0 ** min(max(self._base - exponent, _MIN_EXPONENT), _MAX_EXPONENT))

    def _move_base(self, base: float) -> None:
        shift = int(max(self._base - base, -4000.0))
        for amounts in (self._acts, self._weight):
            np.ldexp(amounts.data, shift, out=amounts.data)
        np.ldexp(self._total, shift, out=self._total)
        self._base = base


def _best(amounts: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    """Positions of the largest amounts, largest first; equal ones in the order of their positions."""
    chosen = np.arange(len(amounts))
    if len(amounts) > limit:
        chosen = np.sort(np.argpartition(-amounts, limit - 1)[:limit])
    return chosen[np.argsort(-amounts[chosen], kind="stable")]
