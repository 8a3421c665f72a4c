"""The rules about places of one list, in rows of its candidates instead of filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from ranking_service.candidate import Flags, Ints, Pool
from ranking_service.rules.questions import matching
from ranking_service.rules.rule import Rule, RuleAction
from zhiyin.common.v1.item_pb2 import Item


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `max_places` of every `window` places in a row hold rows of one group.

    Attributes:
        groups: Of each row, from 0; -1: it has no quota. Shape (n,).
    """

    max_places: int
    window: int
    groups: Ints


@dataclass(frozen=True, slots=True)
class Floor:
    """At least floor(`share` * n) of the first n places hold rows that match, for every n. `matches`: shape (n,)."""

    share: float
    matches: Flags


@dataclass(frozen=True, slots=True)
class PlaceRules:
    """What an order has to keep to.

    Attributes:
        pins: Row by place, from 1.
        floors: In the order of their rules' ids.
        quotas: In any order.
        reserve: Rows that have no place of their own and may only be taken by a floor, best first.
    """

    pins: Mapping[int, int]
    floors: Sequence[Floor]
    quotas: Sequence[Quota]
    reserve: Sequence[int]


def pinned(rules: Sequence[Rule], pool: Pool, order: Ints) -> dict[int, int]:
    """Row by place of every PIN that a candidate matches: each gets the best that no pin before it took.

    Pins go by place, then by id; of several for one place the later ones get the next free places.
    """
    pins: dict[int, int] = {}
    taken: set[int] = set()
    wanted = [rule for rule in rules if rule.action is RuleAction.PIN]
    for rule in sorted(wanted, key=lambda rule: (rule.position, rule.id)):
        row = _best(matching(pool, rule), order, taken)
        if row is not None:
            place = next(p for p in range(rule.position, rule.position + len(pins) + 1) if p not in pins)
            pins[place] = row
            taken.add(row)
    return pins


def pinned_anew(
    rules: Sequence[Rule], pool: Pool, order: Ints, served: Set[int], places_served: int
) -> tuple[dict[int, int], list[int]]:
    """The pins of a list that goes on after places that were served, and rows of pins that were served.

    While nothing changed these are the pins that the list had. A pin whose item was shown meanwhile has had its item;
    one whose place was served without it has had its place.
    """
    pins = pinned(rules, pool, order)
    ahead = {place: row for place, row in pins.items() if place > places_served and row not in served}
    return ahead, [row for row in pins.values() if row in served]


def floors(rules: Sequence[Rule], pool: Pool) -> list[Floor]:
    """The exposure floors over a pool."""
    wanted = [rule for rule in rules if rule.action is RuleAction.EXPOSURE_FLOOR]
    return [Floor(rule.min_share, matching(pool, rule)) for rule in wanted]


def quotas(rules: Sequence[Rule], pool: Pool) -> list[Quota]:
    """The quotas over a pool, rows grouped by the values of their field."""
    found = []
    for rule in rules:
        if rule.action is RuleAction.QUOTA:
            groups = np.where(matching(pool, rule), _groups(rule.per_field, pool.items), -1).astype(np.int32)
            found.append(Quota(rule.max_places, rule.window, groups))
    return found


def _groups(field: str, items: Sequence[Item]) -> Ints:
    if not field:
        return np.zeros(len(items), dtype=np.int32)
    numbers: dict[str, int] = {}
    return np.array(
        [-1 if not value else numbers.setdefault(value, len(numbers)) for value in (_value(i, field) for i in items)],
        dtype=np.int32,
    )


def _value(item: Item, field: str) -> str:
    if field == "categories":
        return item.categories[0] if item.categories else ""
    return item.attributes[field].string_value if field in item.attributes else ""


def _best(matches: Flags, order: Ints, taken: Set[int]) -> int | None:
    return next((row for row in order[matches[order]].tolist() if row not in taken), None)
