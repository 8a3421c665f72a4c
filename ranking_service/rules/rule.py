"""A rule, and those of a catalogue that are in force at a moment."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from zhiyin.common.v1.filter_pb2 import Filter


class RuleAction(enum.IntEnum):
    """What a rule does; the numbers are those of zhiyin.ranking.v1.RuleAction."""

    BOOST = 1
    BURY = 2
    PIN = 3
    BLOCK = 4
    QUOTA = 5
    EXPOSURE_FLOOR = 6
    FREQUENCY_CAP = 7
    COLLAPSE = 8


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, checked, defaults filled in. Fields of other actions keep their defaults.

    Attributes:
        id: The caller's.
        action: What it does.
        filter: To which items; an empty one matches all.
        strength: BOOST, BURY: in standard deviations of the relevance.
        position: PIN: the place, from 1.
        max_places: QUOTA: of every `window` places in a row.
        window: QUOTA: places.
        per_field: QUOTA: the field whose values have a quota each; empty: one for all that match.
        min_share: EXPOSURE_FLOOR: of the places.
        max_impressions: FREQUENCY_CAP: how often within `period_s`.
        period_s: FREQUENCY_CAP: seconds.
        similarity: COLLAPSE: cosine from which two items are the same.
        active_from: Unix seconds; -inf: always was.
        active_until: Unix seconds, not included; inf: for good.
        note: For people.
        updated_at: Unix seconds of the last write.
    """

    id: str
    action: RuleAction
    filter: Filter
    strength: float = 1.0
    position: int = 0
    max_places: int = 0
    window: int = 10
    per_field: str = ""
    min_share: float = 0.0
    max_impressions: int = 0
    period_s: float = 86_400.0
    similarity: float = 0.95
    active_from: float = float("-inf")
    active_until: float = float("inf")
    note: str = ""
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class RuleBook:
    """The rules of a catalogue, in the order of their ids.

    Attributes:
        rules: All of them, in force or not.
        sequence: Of the last write of a rule, in the catalogue's log; 0: there was none.
    """

    rules: Sequence[Rule] = ()
    sequence: int = 0

    def in_force(self, now: float) -> tuple[Rule, ...]:
        """Those that hold at a moment, Unix seconds."""
        return tuple(rule for rule in self.rules if rule.active_from <= now < rule.active_until)


NO_RULES = RuleBook()
