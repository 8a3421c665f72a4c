"""Pins, floors, quotas and exploration slots in one order: against a brute-force checker, one by one and together."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking_service.rules.place_rules import Floor, PlaceRules, Quota
from ranking_service.selectors.exploration_slots import Place, fill_places
from ranking_service.selectors.ruled_places import ruled_places


@dataclass
class Case:
    """Rows 0 to `ordinary` - 1 are the list's own, in `order`; the others wait for a floor, a pin or a slot."""

    rows: int
    ordinary: int
    order: list[int]
    pins: dict[int, int] = field(default_factory=dict)
    floors: list[Floor] = field(default_factory=list)
    quotas: list[Quota] = field(default_factory=list)
    reserve: list[int] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)
    share: float = 0.0
    length: int = 40
    gone: frozenset[int] = frozenset()

    def places(self, before: list[int] | None = None) -> list[Place]:
        rules = PlaceRules(self.pins, self.floors, self.quotas, self.reserve)
        chances = [0.5] * len(self.drawn)
        return list(
            ruled_places(
                iter(self.order),
                rules,
                self.drawn,
                chances,
                self.share,
                self.rows,
                self.ordinary,
                self.length,
                before or [],
                self.gone,
            )
        )

    def own(self) -> set[int]:
        return set(range(self.ordinary)) - set(self.pins.values()) - self.gone


def flags(rows: int, true: list[int]) -> np.ndarray:
    out = np.zeros(rows, dtype=bool)
    out[true] = True
    return out


@st.composite
def cases(draw, pins=True, floors=2, quotas=2, slots=True, gone=True, waiting=True) -> Case:
    ordinary = draw(st.integers(1, 14))
    rows = ordinary + (draw(st.integers(0, 6)) if waiting else 0)
    every = list(range(rows))
    case = Case(rows, ordinary, draw(st.permutations(list(range(ordinary)))))
    if pins:
        pinned = draw(st.lists(st.sampled_from(every), unique=True, max_size=4))
        places = draw(st.lists(st.integers(1, 20), unique=True, min_size=len(pinned), max_size=len(pinned)))
        case.pins = dict(zip(places, pinned, strict=True))
        case.order = [row for row in case.order if row not in pinned]
    for _ in range(draw(st.integers(0, floors))):
        matches = flags(rows, draw(st.lists(st.sampled_from(every), max_size=rows)))
        case.floors.append(Floor(draw(st.sampled_from([0.1, 0.2, 0.25, 1 / 3, 0.5])), matches))
    for _ in range(draw(st.integers(0, quotas))):
        groups = draw(st.lists(st.integers(-1, 2), min_size=rows, max_size=rows))
        window = draw(st.integers(2, 6))
        case.quotas.append(Quota(draw(st.integers(1, window - 1)), window, np.array(groups, np.int32)))
    others = [row for row in range(ordinary, rows) if row not in case.pins.values()]
    case.reserve = [row for row in others if any(floor.matches[row] for floor in case.floors)]
    if slots:
        own = [row for row in every if row not in case.pins.values() and row not in case.reserve]
        case.drawn = draw(st.lists(st.sampled_from(own), unique=True, max_size=5)) if own else []
        case.share = draw(st.sampled_from([0.0, 0.2, 0.5]))
    if gone:
        case.gone = draw(st.frozensets(st.sampled_from(every), max_size=3))
    case.length = draw(st.sampled_from([3, 10, 40]))
    return case


def one_too_many(case: Case, placed: list[int], place: int, row: int) -> bool:
    """Whether a row would break a quota in any window around a place, with the pins further down known."""
    held = dict(enumerate(placed, start=1))
    held |= {p: r for p, r in case.pins.items() if p > place and r not in case.gone and r not in placed}
    held[place] = row
    for quota in case.quotas:
        group = quota.groups[row]
        for begin in range(max(1, place - quota.window + 1), place + 1):
            window = [quota.groups[held[p]] for p in range(begin, begin + quota.window) if p in held]
            if group >= 0 and window.count(group) > quota.max_places:
                return True
    return False


@given(cases())
@settings(max_examples=120, deadline=None)
def test_no_item_twice_none_that_is_gone_and_never_fewer_than_without_rules(case: Case) -> None:
    rows = [place.row for place in case.places()]
    assert len(rows) == len(set(rows))
    assert not set(rows) & case.gone
    assert set(rows) <= {*range(case.ordinary), *case.pins.values(), *case.reserve, *case.drawn}
    assert len(rows) >= min(case.length, len(case.own()))
    if len(rows) < case.length:
        assert case.own() <= set(rows)


@given(cases())
@settings(max_examples=120, deadline=None)
def test_a_pin_has_its_place_whatever_else_is_asked(case: Case) -> None:
    places = case.places()
    for place, row in case.pins.items():
        where = [p for p, found in enumerate(places, start=1) if found.row == row]
        if row in case.gone:
            assert not where
        elif where:
            assert places[where[0] - 1].pinned
            # Only where the list's own items end before the place do pins close up.
            assert where == [place] or (where[0] < place and case.own() <= {p.row for p in places[: where[0]]})
        else:
            assert place > case.length or len(places) == case.length


@given(cases(pins=False, floors=1))
@settings(max_examples=120, deadline=None)
def test_a_floor_holds_in_every_prefix_as_long_as_something_matches(case: Case) -> None:
    rows = [place.row for place in case.places()]
    for floor in case.floors:
        usable = {row for row in (*range(case.ordinary), *case.reserve) if floor.matches[row]} - case.gone
        for n in range(1, len(rows) + 1):
            matched = sum(bool(floor.matches[row]) for row in rows[:n])
            assert matched >= math.floor(n * floor.share + 1e-9) or usable <= set(rows[:n])


@given(cases(quotas=1))
@settings(max_examples=150, deadline=None)
def test_floors_beside_pins_fall_short_only_where_nothing_more_could_be_done(case: Case) -> None:
    places = case.places()
    rows = [place.row for place in places]
    for floor in case.floors:
        usable = {row for row in (*range(case.ordinary), *case.reserve) if floor.matches[row]}
        usable -= {*case.gone, *case.pins.values()}
        for n in range(1, len(rows) + 1):
            if sum(bool(floor.matches[row]) for row in rows[:n]) < math.floor(n * floor.share + 1e-9):
                left = usable - set(rows[:n])
                served = all(p.pinned or any(f.matches[p.row] for f in case.floors) for p in places[:n])
                assert not left or served


@given(cases(slots=False))
@settings(max_examples=150, deadline=None)
def test_the_quotas_that_are_named_are_those_that_moved_the_item(case: Case) -> None:
    """Without quotas nothing names one, and what stands further down than it would without them does."""
    if not case.quotas:
        assert all(not place.quotas for place in case.places())
        return
    free = Case(**{**vars(case), "quotas": []}).places()
    before_free = {place.row: n for n, place in enumerate(free)}
    places = case.places()
    for n, place in enumerate(places):
        assert set(place.quotas) <= set(range(len(case.quotas)))
        if place.pinned:
            assert not place.quotas
        elif not case.floors and before_free.get(place.row, n) < n:
            assert place.quotas


def test_each_item_names_the_quota_that_held_it_back_or_made_room_for_it() -> None:
    """Rows 0 to 2 are of one voice, 3 of another and 4 has none; of three in a row one may be of a voice."""
    of_voice, of_kind = np.array([0, 0, 0, 1, -1], np.int32), np.array([-1, -1, -1, -1, 0], np.int32)
    case = Case(5, 5, [0, 1, 3, 4, 2], quotas=[Quota(1, 9, of_kind), Quota(1, 3, of_voice)])
    assert [(place.row, place.quotas) for place in case.places()] == [
        (0, ()),
        (3, (1,)),  # has the place of row 1
        (4, (1,)),  # likewise
        (1, (1,)),  # was held back
        (2, ()),  # stands where it would without them: nothing else is left
    ]


@given(cases(floors=0, slots=False))
@settings(max_examples=120, deadline=None)
def test_quotas_take_at_each_place_the_first_that_breaks_none(case: Case) -> None:
    placed: list[int] = []
    waiting = [row for row in case.order if row not in case.gone]
    pins = {place: row for place, row in case.pins.items() if row not in case.gone}
    for place in range(1, case.length + 1):
        row = pins.pop(place, None)
        if row is None and waiting:
            fits = [r for r in waiting if not one_too_many(case, placed, place, r)]
            row = fits[0] if fits else waiting[0]
            waiting.remove(row)
        elif row is None and pins:
            row = pins.pop(min(pins))
        if row is None:
            break
        placed.append(row)
    assert [place.row for place in case.places()] == placed


@given(cases())
@settings(max_examples=150, deadline=None)
def test_a_quota_is_broken_only_for_a_pin_a_floor_or_when_everything_would_break_one(case: Case) -> None:
    places = case.places()
    rows = [place.row for place in places]
    for n, place in enumerate(places, start=1):
        if place.pinned or not one_too_many(case, rows[: n - 1], n, place.row):
            continue
        assert not place.explored
        by_floor = [floor for floor in case.floors if floor.matches[place.row]]
        others = case.own() - set(rows[: n - 1])
        assert by_floor or all(one_too_many(case, rows[: n - 1], n, row) for row in others)


@given(cases())
@settings(max_examples=80, deadline=None)
def test_a_list_goes_on_from_any_place_as_if_it_had_never_stopped(case: Case) -> None:
    whole = case.places()
    for k in range(len(whole) + 1):
        assert case.places([place.row for place in whole[:k]]) == whole[k:]


@given(cases(pins=False, floors=0, quotas=0, gone=False))
@settings(max_examples=100, deadline=None)
def test_without_rules_it_is_the_list_as_it_was(case: Case) -> None:
    chances = [0.5] * len(case.drawn)
    plain = fill_places(iter(case.order), case.drawn, chances, case.share)
    assert case.places() == list(itertools.islice(plain, case.length))


def test_the_propensity_is_the_chance_among_those_that_a_quota_lets_in() -> None:
    groups = np.array([0, 1, 0, 1, 1], np.int32)
    seen: Counter[int] = Counter()
    for drawn in itertools.permutations([2, 3, 4]):
        case = Case(5, 2, [0, 1], quotas=[Quota(1, 2, groups)], drawn=list(drawn), share=0.5)
        slot = case.places()[1]
        assert slot.explored
        assert slot.propensity == pytest.approx(0.5 / 2)
        seen[slot.row] += 1
    assert seen == {3: 3, 4: 3}


def test_two_floors_due_at_once_are_both_kept() -> None:
    case = Case(8, 4, [0, 1, 2, 3], reserve=[4, 5, 6, 7])
    case.floors = [Floor(0.5, flags(8, [4, 5])), Floor(0.5, flags(8, [6, 7]))]
    rows = [place.row for place in case.places()]
    assert rows[:4] == [4, 6, 5, 7]
    assert sorted(rows[4:]) == [0, 1, 2, 3]


def test_a_floor_makes_room_before_a_pin_that_does_not_match() -> None:
    case = Case(4, 2, [0], pins={2: 1}, reserve=[3], floors=[Floor(0.5, flags(4, [3]))])
    assert [place.row for place in case.places()] == [3, 1, 0]


def test_a_floor_comes_before_a_quota() -> None:
    groups = np.array([-1, -1, 0, 0], np.int32)
    case = Case(4, 4, [0, 1, 2, 3], floors=[Floor(0.5, flags(4, [2, 3]))], quotas=[Quota(1, 4, groups)])
    assert [place.row for place in case.places()] == [0, 2, 1, 3]
