"""A number an item, by item number."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

Numbers = NDArray[np.uint32]


def numbers_of(items: BitMap) -> Numbers:
    """Item numbers as an array, rising."""
    return np.array(items.to_array(), dtype=np.uint32)


def bitmap_of(numbers: Numbers) -> BitMap:
    """The set of item numbers in an array; five times as fast as BitMap(numbers), which takes them one by one."""
    return BitMap(array("I", numbers.tobytes()))


class NumberColumn:
    """Numbers by item number; NaN where an item has none. Not safe for threads; its owner holds a lock."""

    def __init__(self) -> None:
        self._values: NDArray[np.float64] = np.full(1024, np.nan)
        self.count = 0

    def put(self, number: int, value: float | None) -> None:
        """Sets or clears the value of an item."""
        if number >= len(self._values):
            if value is None:
                return
            grown = np.full(max(number + 1, len(self._values) * 3 // 2), np.nan)
            grown[: len(self._values)] = self._values
            self._values = grown
        had, has = not np.isnan(self._values[number]), value is not None
        self.count += has - had
        self._values[number] = np.nan if value is None else value

    def values(self, at: Numbers) -> NDArray[np.float64]:
        """The values of some items, NaN where there is none."""
        values = np.full(len(at), np.nan)
        inside = at < len(self._values)
        values[inside] = self._values[at[inside]]
        return values

    def between(self, low: float, high: float, among: BitMap | None = None) -> BitMap:
        """Items with low <= value <= high; of some items only, where these are given."""
        return self._where(lambda values: (values >= low) & (values <= high), among)  # with NaN both are false

    def one_of(self, wanted: list[float], among: BitMap | None = None) -> BitMap:
        """Items with one of these values; of some items only, where these are given."""
        return self._where(lambda values: np.isin(values, wanted), among)

    def _where(self, holds: Callable[[NDArray[np.float64]], NDArray[np.bool_]], among: BitMap | None) -> BitMap:
        if among is None:
            return bitmap_of(np.flatnonzero(holds(self._values)).astype(np.uint32))
        at = numbers_of(among)
        return bitmap_of(at[holds(self.values(at))])
