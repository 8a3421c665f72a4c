"""Items in the order of their priors, so that the best of a filter's millions are found without a walk over them.

Bitmaps of items with nearly the same prior, and others that deal all items out at random: the best few of a large set
are the best levels' share of it, and among equals the first of the deal. Ties have nothing to do with ids or with the
order of writing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from pyroaring import BitMap

from retrieval_service.number_column import NumberColumn, Numbers, numbers_of

_LEVELS = 64
_HANDS = 64
# So many are sorted at once faster than they are cut into levels.
_SMALL = 2048
# What an item counts as that says nothing; it comes after those that say so.
_UNSET = 0.5


@dataclass(slots=True)
class _Level:
    """Items whose priors lie in [low, high]; the bounds never come closer again."""

    low: float
    high: float
    numbers: BitMap = field(default_factory=BitMap)


class PriorOrder:
    """Best prior first, over item numbers of 32 bits. Not safe for threads; its owner holds a lock."""

    def __init__(self) -> None:
        self._levels: dict[tuple[int, bool], _Level] = {}
        self._hands = [BitMap() for _ in range(_HANDS)]
        self._priors = NumberColumn()

    def add(self, number: int, prior: float | None) -> None:
        """Takes an item in; `prior` is in [0,1]."""
        value = _UNSET if prior is None else prior
        level = self._levels.setdefault(_level(prior), _Level(value, value))
        level.low, level.high = min(level.low, value), max(level.high, value)
        level.numbers.add(number)
        self._hands[_hand(number)].add(number)
        self._priors.put(number, prior)

    def remove(self, number: int, prior: float | None) -> None:
        """Forgets an item; `prior` is what was added."""
        key = _level(prior)
        self._levels[key].numbers.discard(number)
        if not self._levels[key].numbers:
            del self._levels[key]
        self._hands[_hand(number)].discard(number)
        self._priors.put(number, None)

    def best(self, found: BitMap, count: int) -> list[int]:
        """The best of some items, best first.

        Args:
            found: Numbers of items that were added.
            count: So many, if there are.
        """
        if len(found) <= _SMALL:
            return self._sorted(found)[:count]
        best: list[int] = []
        for key in sorted(self._levels, reverse=True):
            level = self._levels[key]
            here = found & level.numbers
            if level.low == level.high and len(here) > _SMALL:
                here = self._dealt(here, count - len(best))
            best += self._sorted(here)
            if len(best) >= count:
                break
        return best[:count]

    def _sorted(self, some: BitMap) -> list[int]:
        numbers = numbers_of(some)
        priors = self._priors.values(numbers)
        unset = np.isnan(priors)
        order = np.lexsort((_shuffled(numbers), unset, -np.where(unset, _UNSET, priors)))
        ordered: list[int] = numbers[order].tolist()
        return ordered

    def _dealt(self, equals: BitMap, count: int) -> BitMap:
        """At least `count` of items that are equal, those that come first."""
        dealt = BitMap()
        for hand in self._hands:
            dealt |= equals & hand
            if len(dealt) >= count:
                break
        return dealt


def _level(prior: float | None) -> tuple[int, bool]:
    return math.floor((_UNSET if prior is None else prior) * _LEVELS), prior is not None


def _hand(number: int) -> int:
    """Hands follow one another as `_shuffled` does."""
    mixed = number ^ 0x5BD1E995
    mixed = (mixed ^ mixed >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return (mixed ^ mixed >> 16) * _HANDS >> 32


def _shuffled(numbers: Numbers) -> Numbers:
    """A permutation of the 32-bit numbers without a pattern: the finaliser of MurmurHash3 (Appleby 2011)."""
    mixed: Numbers = numbers ^ np.uint32(0x5BD1E995)
    mixed = (mixed ^ mixed >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ mixed >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    return mixed ^ mixed >> np.uint32(16)
