"""The (user, item) pairs of one catalogue that its statistics are kept on: a slot a pair, columns by slot.

A user counts once for an item however often they come back, so everything that all users did is a function of these
pairs, and a user is erased by emptying their slots. Users are the store's numbers: nothing here names a person.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOTHING = 0
"""Slot and item number that stand for nothing: links end there, and what is added there is thrown away."""


class Column:
    """A growing array with one value a slot. Read and written through `data`, which growth replaces."""

    def __init__(self, dtype: type[np.generic], fill: float, size: int, derived: bool = False) -> None:
        self.data: NDArray[Any] = np.full(size, fill, dtype)
        self.derived = derived
        self._fill = fill

    def grow(self, size: int) -> None:
        """Makes room for `size` slots."""
        grown = np.full(size, self._fill, self.data.dtype)
        grown[: len(self.data)] = self.data
        self.data = grown

    def clear(self, slot: int) -> None:
        """Back to the value of an unused slot."""
        self.data[slot] = self._fill


class PairTable:
    """Numbers items, hands out slots, and finds them by item and by user.

    Attributes:
        item_ids: Item id by item number; number 0 is nothing.
        by_item: Slot by user key for each item number, in the order of `stamp`.
        by_user: Slots of each user key.
        item: Item number by slot.
        user: User key by slot; 0: the slot is free.
        stamp: Sequence number that gave a pair its place among those of its item: of its latest positive event, else
            of its first.
    """

    def __init__(self) -> None:
        self._capacity = 1024
        self._columns: list[Column] = []
        self._next_slot = NOTHING + 1
        self._free: list[int] = []
        self._item_numbers: dict[str, int] = {}
        self.item_ids: list[str] = [""]
        self.by_item: list[dict[int, int]] = [{}]
        self.by_user: dict[int, array[int]] = {}
        self.item = self.column(np.int32, NOTHING)  # column_0 in `compacted`
        self.user = self.column(np.int64, 0)  # column_1
        self.stamp = self.column(np.int64, 0)  # column_2

    @property
    def item_count(self) -> int:
        """Item numbers in use, nothing included."""
        return len(self.item_ids)

    def column(self, dtype: type[np.generic], fill: float, *, derived: bool = False) -> Column:
        """A new column; it grows with the table and is cleared where a pair goes. `derived` ones follow from others."""
        column = Column(dtype, fill, self._capacity, derived)
        self._columns.append(column)
        return column

    def item_number(self, item_id: str) -> int:
        """The number of an item, given out at first sight."""
        number = self._item_numbers.get(item_id)
        if number is None:
            number = self._item_numbers[item_id] = len(self.item_ids)
            self.item_ids.append(item_id)
            self.by_item.append({})
        return number

    def find_item(self, item_id: str) -> int:
        """The number of an item, NOTHING for one that no event named."""
        return self._item_numbers.get(item_id, NOTHING)

    def slot(self, item: int, user_key: int, sequence: int) -> int:
        """The slot of a pair, made at first sight."""
        slots = self.by_item[item]
        found = slots.get(user_key)
        if found is not None:
            return found
        slot = self._free.pop() if self._free else self._take_next()
        self.item.data[slot] = item
        self.user.data[slot] = user_key
        self.stamp.data[slot] = sequence
        slots[user_key] = slot
        self.by_user.setdefault(user_key, array("i")).append(slot)
        return slot

    def move_to_end(self, slot: int, user_key: int, sequence: int) -> None:
        """Makes the user the latest of the slot's item."""
        slots = self.by_item[int(self.item.data[slot])]
        slots[user_key] = slots.pop(user_key)
        self.stamp.data[slot] = sequence

    def remove_user(self, user_key: int) -> list[int]:
        """Empties all slots of a user and returns the numbers of their items."""
        items: list[int] = []
        for slot in self.by_user.pop(user_key, ()):
            item = int(self.item.data[slot])
            del self.by_item[item][user_key]
            items.append(item)
            for column in self._columns:
                column.clear(slot)
            self._free.append(slot)
        return items

    def copied(self) -> tuple[list[str], dict[str, NDArray[Any]]]:
        """Item ids by number and all columns as they are, for `compacted`. Quick: a copy and nothing else."""
        columns = {f"column_{number}": column.data.copy() for number, column in enumerate(self._columns)}
        return list(self.item_ids), columns

    def restore(self, item_ids: list[str], saved: dict[str, NDArray[Any]]) -> None:
        """Fills an empty table that has the same columns with what `compacted` gave."""
        for item_id in item_ids[1:]:
            self.item_number(item_id)
        count = len(saved["column_0"])
        while self._capacity <= count:
            self._capacity *= 2
        for number, column in enumerate(self._columns):
            column.grow(self._capacity)
            column.data[NOTHING + 1 : count + 1] = saved[f"column_{number}"]
        self._next_slot = count + 1
        pairs = zip(self.item.data[1 : count + 1].tolist(), self.user.data[1 : count + 1].tolist(), strict=True)
        for slot, (item, user_key) in enumerate(pairs, start=1):
            self.by_item[item][user_key] = slot
            self.by_user.setdefault(user_key, array("i")).append(slot)

    def values(self) -> dict[tuple[str, int], tuple[float, ...]]:
        """What is kept of each (item id, user key), whatever its slot: two tables of one log have equal values."""
        used = np.flatnonzero(self.user.data)
        kept = [c.data[used].tolist() for c in self._columns if c not in (self.item, self.user) and not c.derived]
        items = (self.item_ids[item] for item in self.item.data[used].tolist())
        return dict(zip(zip(items, self.user.data[used].tolist(), strict=True), zip(*kept, strict=True), strict=True))

    def _take_next(self) -> int:
        slot = self._next_slot
        if slot == self._capacity:
            self._capacity *= 2
            for column in self._columns:
                column.grow(self._capacity)
        self._next_slot += 1
        return slot


def compacted(item_ids: list[str], columns: dict[str, NDArray[Any]]) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """What `copied` gave without the free slots, in the order of stamps, for a snapshot.

    Items are numbered anew: those that only erased users acted on are left out.
    """
    used = np.flatnonzero(columns["column_1"])
    used = used[np.argsort(columns["column_2"][used], kind="stable")]
    kept = {name: column[used] for name, column in columns.items()}
    numbers, renumbered = np.unique(kept["column_0"], return_inverse=True)
    kept["column_0"] = renumbered + (NOTHING + 1)
    return ["", *(item_ids[number] for number in numbers)], kept
