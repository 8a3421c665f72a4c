"""The one table of event types: what each type says about an item, how strongly, and what follows from it.

The same table stands in docs/events.md; a test holds the two together. Nothing else gives a type a weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from zhiyin.ranking.v1 import ranking_service_pb2 as pb


class Repeat(Enum):
    """What several events of one user on one item mean together."""

    ADDS = "adds"
    """Each counts, up to the bound that popularity puts on one user and one item."""
    REPLACES = "replaces"
    """They are one opinion: the latest of all opinion types counts."""
    IGNORED = "-"
    """They say nothing about an item."""


@dataclass(frozen=True, slots=True)
class Band:
    """Strength between two values, linear from `at_low` to `at_high`; `low` belongs to it, `high` to the next band."""

    low: float
    high: float
    at_low: float
    at_high: float


@dataclass(frozen=True, slots=True)
class EventRule:
    """One row of the table.

    Attributes:
        base: Signed strength in [-1, 1] of an event without a value: positive is for the item, negative against it.
        bands: Strength by value, where the value matters; ascending and without gaps.
        value_needed: Whether the event must carry a value.
        value_range: What `value` may be; None: any finite number, kept and not used.
        repeat: What several events mean together.
        seen: Whether the item is done with after the event.
        seen_from_value: The item is done with from this value on.
        hides: Whether the item must never come back to this user.
        in_history: Whether the event belongs to the recent interactions that recommendations are made from.
    """

    base: float
    bands: tuple[Band, ...] = ()
    value_needed: bool = False
    value_range: tuple[float, float] | None = None
    repeat: Repeat = Repeat.ADDS
    seen: bool = False
    seen_from_value: float | None = None
    hides: bool = False
    in_history: bool = True

    def strength(self, value: float | None) -> float:
        """Signed strength in [-1, 1] of an event with this value."""
        if value is None or not self.bands:
            return self.base
        for band in self.bands:
            if value < band.high:
                break
        share = min(max((value - band.low) / (band.high - band.low), 0.0), 1.0)
        return band.at_low + share * (band.at_high - band.at_low)

    def marks_seen(self, value: float | None) -> bool:
        """Whether the item is done with after an event with this value."""
        return self.seen or (self.seen_from_value is not None and value is not None and value >= self.seen_from_value)


_RATING = (Band(0.5, 2.5, -1.0, -0.4), Band(2.5, 3.5, 0.0, 0.0), Band(3.5, 5.0, 0.5, 1.0))
_SHARE_SEEN = (Band(0.0, 0.1, 0.0, 0.0), Band(0.1, 1.0, 0.2, 0.8))

RULES: dict[int, EventRule] = {
    pb.EVENT_TYPE_IMPRESSION: EventRule(0.0, repeat=Repeat.IGNORED, in_history=False),
    pb.EVENT_TYPE_CLICK: EventRule(0.3),
    pb.EVENT_TYPE_VIEW: EventRule(0.4, bands=_SHARE_SEEN, value_range=(0.0, 1.0), seen_from_value=0.9),
    pb.EVENT_TYPE_FINISH: EventRule(0.9, seen=True),
    pb.EVENT_TYPE_LIKE: EventRule(0.8, repeat=Repeat.REPLACES, seen=True),
    pb.EVENT_TYPE_SAVE: EventRule(0.6, seen=True),
    pb.EVENT_TYPE_SHARE: EventRule(0.9, seen=True),
    pb.EVENT_TYPE_ADD_TO_CART: EventRule(0.7, seen=True),
    pb.EVENT_TYPE_PURCHASE: EventRule(1.0, value_range=(0.0, 1e9), seen=True),
    pb.EVENT_TYPE_RATING: EventRule(
        0.0, bands=_RATING, value_needed=True, value_range=(0.5, 5.0), repeat=Repeat.REPLACES, seen=True
    ),
    pb.EVENT_TYPE_COMMENT: EventRule(0.3),
    pb.EVENT_TYPE_SEARCH: EventRule(0.0, repeat=Repeat.IGNORED),
    pb.EVENT_TYPE_SKIP: EventRule(-0.3),
    pb.EVENT_TYPE_DISLIKE: EventRule(-1.0, repeat=Repeat.REPLACES, seen=True, hides=True),
    pb.EVENT_TYPE_HIDE: EventRule(-1.0, repeat=Repeat.REPLACES, seen=True, hides=True),
}


def strength(event_type: int, value: float | None) -> float:
    """Signed strength in [-1, 1] of an event."""
    return RULES[event_type].strength(value)


def name(event_type: int) -> str:
    """The type's name as people write it, such as `ADD_TO_CART`."""
    return pb.EventType.Name(pb.EventType.ValueType(event_type)).removeprefix("EVENT_TYPE_")


def markdown_table() -> str:
    """The table as the documentation shows it."""
    lines = [
        "| type | strength | value | repeats | item is done with | in the history |",
        "|---|---|---|---|---|---|",
    ]
    for number, rule in RULES.items():
        cells = (name(number), _strength_cell(rule), _value_cell(rule), rule.repeat.value, _seen_cell(rule))
        lines.append("| " + " | ".join(cells) + f" | {'yes' if rule.in_history else 'no'} |")
    return "\n".join(lines) + "\n"


def _strength_cell(rule: EventRule) -> str:
    if not rule.bands:
        return f"{rule.base:+g}" if rule.base else "0"
    parts = []
    for band in rule.bands:
        flat = band.at_low == band.at_high
        amount = f"{band.at_low:g}" if flat else f"{band.at_low:+g} to {band.at_high:+g}"
        parts.append(f"{amount} for {band.low:g} to {band.high:g}")
    return "; ".join(parts) + ("" if rule.value_needed else f"; {rule.base:+g} without a value")


def _value_cell(rule: EventRule) -> str:
    if rule.value_range is None:
        return "not used"
    low, high = rule.value_range
    return f"{'needed' if rule.value_needed else 'optional'}, {low:g} to {high:g}"


def _seen_cell(rule: EventRule) -> str:
    if rule.hides:
        return "yes, and hidden for good"
    if rule.seen_from_value is not None:
        return f"from value {rule.seen_from_value:g}"
    return "yes" if rule.seen else "no"
