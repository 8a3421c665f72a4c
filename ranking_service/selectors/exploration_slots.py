"""Places set aside for items that are tried out, with the chance each item had of standing there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """One place of a list.

    Attributes:
        row: The candidate.
        explored: Whether the place is an exploration slot.
        propensity: P(this item in this place | the request and the places before); 1 outside of exploration slots.
        pinned: Whether a rule put the row there.
        floor: Which of the exposure floors was due here, from 0; -1: none.
        quotas: Which of the quotas had held the row back from an earlier place, or gave it the place of a row that they
            held back, from 0 and rising.
    """

    row: int
    explored: bool = False
    propensity: float = 1.0
    pinned: bool = False
    floor: int = -1
    quotas: tuple[int, ...] = ()


def is_slot(place: int, share: float) -> bool:
    """Whether a place, from 1, is an exploration slot: where `floor(place * share)` grows."""
    return math.floor(place * share + 1e-9) > math.floor((place - 1) * share + 1e-9)


def fill_places(
    main: Iterator[int], drawn: Sequence[int], chance_drawn: Sequence[float], share: float
) -> Iterator[Place]:
    """Yields all places, lazily; the first k do not depend on how many are read.

    The slots lie evenly (`is_slot`). A slot takes the next of the drawn items
    that has no place yet. Since their order is random, each of the r that remain had the chance 1/r; times the chance
    of having been drawn from the sample at all, that is the propensity. It has a floor of 1 / size of the sample.

    Args:
        main: Rows in the order of the list without exploration.
        drawn: Rows of the drawn items that passed the filters, in random order.
        chance_drawn: The chance each had of being drawn.
        share: Of places, in [0, 1].
    """
    taken: set[int] = set()
    waiting = list(zip(drawn, chance_drawn, strict=True))
    place = 0
    while True:
        place += 1
        slot = is_slot(place, share)
        waiting = [entry for entry in waiting if entry[0] not in taken] if slot else waiting
        if slot and waiting:
            row, chance = waiting.pop(0)
            found = Place(row, True, chance / (len(waiting) + 1))
        else:
            row = next((row for row in main if row not in taken), -1)
            if row < 0:
                return
            found = Place(row)
        taken.add(found.row)
        yield found
