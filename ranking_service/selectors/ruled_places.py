"""The places of a list that rules have a say in, one by one.

A place belongs to, in this order: the pin of the place; a floor that is due; an exploration slot; the next row of the
diverse order. All but pins keep to the quotas as long as something is left that does. Pure and lazy: the first k
places do not depend on how many are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set

import numpy as np

from ranking_service.candidate import Flags
from ranking_service.rules.place_rules import Floor, PlaceRules, Quota
from ranking_service.selectors.exploration_slots import Place, is_slot

_ROUNDING = 1e-9


def ruled_places(
    main: Iterator[int],
    rules: PlaceRules,
    drawn: Sequence[int],
    chance_drawn: Sequence[float],
    share: float,
    rows: int,
    ordinary: int,
    length: int,
    before: Sequence[int] = (),
    gone: Set[int] = frozenset(),
) -> Iterator[Place]:
    """Yields places, those of `before` not among them.

    Args:
        main: Rows in the order of the list without rules.
        rules: What to keep to.
        drawn: Rows drawn for exploration, in random order.
        chance_drawn: The chance each had of being drawn.
        share: Of places for exploration, in [0, 1].
        rows: How many rows there are.
        ordinary: How many of them `main` yields: the first ones.
        length: Places of the whole list; floors look ahead so far.
        before: Rows of the places so far; -1 where the row is not known any more.
        gone: Rows that must not be shown.
    """
    board = _Board(rules, rows, ordinary, length, gone)
    queue = _Queue(main, ordinary)
    waiting = list(zip(drawn, chance_drawn, strict=True))

    def next_place() -> Place | None:
        return _next_place(board, queue, rules, waiting if is_slot(board.place, share) else [])

    for row in before:
        if rules.quotas:
            next_place()  # whom it holds back is remembered
        board.put(row)
    while board.place <= length:
        found = next_place()
        if found is None:
            return
        board.put(found.row)
        yield found


def _next_place(board: _Board, queue: _Queue, rules: PlaceRules, waiting: Sequence[tuple[int, float]]) -> Place | None:
    pin = rules.pins.get(board.place)
    if pin is not None and board.is_open(pin):
        return Place(pin, pinned=True)
    allowed = board.within_quotas()
    due = board.due_floor()
    needed = due.matches if due is not None else None
    eligible = [(row, chance) for row, chance in waiting if allowed[row] and (needed is None or needed[row])]
    if eligible:
        row, chance = eligible[0]
        return Place(row, True, chance / len(eligible))
    # Where the quotas cannot be met, what is left comes in its order.
    if due is not None and needed is not None:
        floor = next(number for number, floor in enumerate(rules.floors) if floor is due)
        for matching in (allowed & needed, board.free & needed):
            found = queue.first(matching)
            if found is None:
                found = next((row for row in rules.reserve if matching[row]), None)
            if found is not None:
                passed = [row for row in queue.ahead_of(found) if needed[row]]
                return Place(found, floor=floor, quotas=board.held_back(passed, found))
    for open_rows in (allowed, board.free):
        found = queue.first(open_rows)
        if found is not None:
            return Place(found, quotas=board.held_back(queue.ahead_of(found), found))
    # Nothing of the list's own is left: pins that wait for a place beyond its end close up.
    closing_up = next((row for _, row in sorted(rules.pins.items()) if board.is_open(row)), None)
    return None if closing_up is None else Place(closing_up, pinned=True)


class _Queue:
    """The diverse order, read no further than needed; what was passed over is remembered."""

    def __init__(self, main: Iterator[int], ordinary: int) -> None:
        self._main, self._ordinary = main, ordinary
        self._passed: list[int] = []

    def first(self, wanted: Flags) -> int | None:
        """The first row that is wanted; it stays in the queue."""
        if not wanted[: self._ordinary].any():
            return None
        for row in self._passed:
            if wanted[row]:
                return row
        for row in self._main:
            self._passed.append(row)
            if wanted[row]:
                return row
        return None

    def ahead_of(self, row: int) -> list[int]:
        """The rows that stand before one in the order, as far as it was read."""
        return self._passed[: self._passed.index(row)] if row in self._passed else []


class _Board:
    """The places so far, and what follows from them for the next one.

    Attributes:
        place: The next, from 1.
        free: Rows that may still get a place of their own, shape (rows,).
    """

    def __init__(self, rules: PlaceRules, rows: int, ordinary: int, length: int, gone: Set[int]) -> None:
        self.place = 1
        self.free: Flags = np.ones(rows, dtype=bool)
        self._open: Flags = np.ones(rows, dtype=bool)
        for row in gone:
            self.free[row] = self._open[row] = False
        # Nothing else gives a pinned row a place.
        self._pins = {place: row for place, row in rules.pins.items() if self._open[row]}
        self.free[list(self._pins.values())] = False
        self._quotas = [_HeldQuota(quota, self._pins) for quota in rules.quotas]
        self._held_back: dict[int, set[int]] = {}
        usable = np.zeros(rows, dtype=bool)
        usable[:ordinary] = usable[list(rules.reserve)] = True
        self._floors = _Floors(rules.floors, usable, self._pins, length) if rules.floors else None

    def put(self, row: int) -> None:
        """Gives the next place to a row; -1: to one that nothing is known of."""
        if row >= 0:
            self.free[row] = self._open[row] = False
        for quota in self._quotas:
            quota.put(row)
        if self._floors is not None:
            self._floors.put(row)
        self.place += 1

    def is_open(self, row: int) -> bool:
        """Whether a pinned row has no place yet."""
        return bool(self._open[row])

    def within_quotas(self) -> Flags:
        """Free rows that the next place may hold, shape (rows,)."""
        allowed = self.free.copy()
        for quota in self._quotas:
            quota.forbid(self.place, allowed)
        return allowed

    def held_back(self, passed: Sequence[int], found: int) -> tuple[int, ...]:
        """The quotas that a row owes its place to, after `within_quotas` said what the place may hold.

        Args:
            passed: Rows that stood before it. Those still free that a quota forbids here are held back.
            found: The row.
        """
        if not self._quotas:
            return ()
        moved = self._held_back.pop(found, set())
        for row in passed:
            if self.free[row]:
                forbidding = {number for number, quota in enumerate(self._quotas) if quota.forbids(row)}
                self._held_back.setdefault(row, set()).update(forbidding)
                moved |= forbidding
        return tuple(sorted(moved))

    def due_floor(self) -> Floor | None:
        """The floor that the next place belongs to."""
        return None if self._floors is None else self._floors.due(self.place, self.free)


class _HeldQuota:
    """A quota and the groups of the places so far."""

    def __init__(self, quota: Quota, pins: dict[int, int]) -> None:
        self._quota = quota
        self._held: list[int] = []
        self._pinned = {place: int(quota.groups[row]) for place, row in pins.items()}
        # One more than there are groups: -1, no group, is the last and never full.
        self._full = np.zeros(int(quota.groups.max(initial=-1)) + 2, dtype=bool)
        self._full_now: list[int] = []

    def put(self, row: int) -> None:
        self._held.append(int(self._quota.groups[row]) if row >= 0 else -1)

    def forbid(self, place: int, allowed: Flags) -> None:
        """Takes out what would be one too many in a window around the place, pins further down counted."""
        full = self._full_now = self._full_groups(place)
        if full:
            self._full[full] = True
            np.logical_and(allowed, ~self._full[self._quota.groups], out=allowed)
            self._full[full] = False

    def forbids(self, row: int) -> bool:
        """Whether a row would have been one too many where `forbid` looked last."""
        return int(self._quota.groups[row]) in self._full_now

    def _full_groups(self, place: int) -> list[int]:
        window, most = self._quota.window, self._quota.max_places
        counts = Counter(group for group in self._held[max(0, place - window) :] if group >= 0)
        full = {group for group, count in counts.items() if count >= most}
        ahead = [p for p in self._pinned if place < p < place + window]
        if ahead:
            # Windows that begin later hold pins further down, and less of what came before.
            for begin in range(place - window + 2, place + 1):
                if 1 <= begin - 1 <= len(self._held) and self._held[begin - 2] >= 0:
                    counts[self._held[begin - 2]] -= 1
                group = self._pinned.get(begin + window - 1, -1)
                if group >= 0:
                    counts[group] += 1
                    if counts[group] >= most:
                        full.add(group)
        return list(full)


class _Floors:
    """The floors as jobs with deadlines: a floor is due when one place for anything else would break a promise."""

    def __init__(self, floors: Sequence[Floor], usable: Flags, pins: dict[int, int], length: int) -> None:
        self._floors = floors
        self._usable = [usable & floor.matches for floor in floors]
        self._length = length
        self._matched = np.zeros(len(floors), dtype=np.int64)
        places = np.arange(length + 1)
        self._wanted = np.stack([np.floor(places * floor.share + _ROUNDING).astype(np.int64) for floor in floors])
        # Of the first m places, how many pins hold, and how many of those match: shapes (length + 1,), (floors, ...).
        self._pins = np.zeros(length + 1, dtype=np.int64)
        self._by_pins = np.zeros((len(floors), length + 1), dtype=np.int64)
        for place, row in pins.items():
            if place <= length:
                self._pins[place:] += 1
                for number, floor in enumerate(floors):
                    self._by_pins[number, place:] += int(floor.matches[row])

    def put(self, row: int) -> None:
        if row >= 0:
            self._matched += [int(floor.matches[row]) for floor in self._floors]

    def due(self, place: int, free: Flags) -> Floor | None:
        if place > self._length:
            return None
        left = np.array([int(np.count_nonzero(free & usable)) for usable in self._usable])[:, None]
        ahead = slice(place, self._length + 1)
        pinned = self._by_pins[:, ahead] - self._by_pins[:, place - 1 : place]
        missing = np.clip(self._wanted[:, ahead] - self._matched[:, None] - pinned, 0, left)
        # Places after this one, up to each place ahead, that no pin holds.
        room = np.arange(self._length + 1 - place) - (self._pins[ahead] - self._pins[place])
        if not (missing.sum(axis=0) > room).any():
            return None
        deadlines = [int(np.argmax(row > 0)) if row.any() else self._length for row in missing]
        return self._floors[int(np.argmin(deadlines))]
