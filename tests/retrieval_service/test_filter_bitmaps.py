"""FilterIndex against a plain evaluation of the same conditions, item by item."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from retrieval_service.filter_index import FilterIndex
from retrieval_service.filters import (
    AllOf,
    AnyOf,
    FieldExists,
    FieldIn,
    Filter,
    Not,
    NumberRange,
    TimeRange,
)
from retrieval_service.item import Item

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
moments = st.integers(0, 5).map(lambda days: EPOCH + timedelta(days=days))
words = st.sampled_from(["red", "blue", "绿"])
items = st.builds(
    Item,
    id=st.just("set later"),
    title=st.just("title"),
    categories=st.lists(words, max_size=2).map(tuple),
    language=st.sampled_from(["", "zh", "en"]),
    created_at=moments,
    attributes=st.fixed_dictionaries(
        {},
        optional={
            "colour": words,
            "price": st.integers(0, 4).map(float),
            "sale": st.booleans(),
            "tags": st.lists(words, max_size=2, unique=True).map(tuple),
            "seen": moments,
        },
    ),
    available=st.sampled_from([None, True, False]),
    available_from=st.none() | moments,
    available_until=st.none() | moments,
)
word_fields = st.sampled_from(["categories", "language", "attributes.colour", "attributes.tags", "attributes.unknown"])
any_fields = word_fields | st.sampled_from(["id", "created_at", "attributes.price", "attributes.sale"])
leaves = st.one_of(
    st.builds(FieldIn, st.just("p"), word_fields, st.lists(words, min_size=1).map(tuple)),
    st.builds(
        FieldIn, st.just("p"), st.just("id"), st.lists(st.sampled_from(["i0", "i1", "no"]), min_size=1).map(tuple)
    ),
    st.builds(FieldIn, st.just("p"), st.just("attributes.price"), st.lists(st.just(2.0), min_size=1).map(tuple)),
    st.builds(FieldIn, st.just("p"), st.just("attributes.sale"), st.lists(st.booleans(), min_size=1).map(tuple)),
    st.builds(
        NumberRange, st.just("p"), st.just("attributes.price"), st.none() | st.floats(0, 4), st.none() | st.floats(0, 4)
    ),
    st.builds(
        TimeRange,
        st.just("p"),
        st.sampled_from(["created_at", "attributes.seen"]),
        st.none() | moments,
        st.none() | moments,
    ),
    st.builds(FieldExists, st.just("p"), any_fields),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: AllOf(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=6,
)


def values_of(item: Item, field: str) -> list[Any]:
    if field.startswith("attributes."):
        value = item.attributes.get(field.removeprefix("attributes."))
        return [] if value is None else list(value) if isinstance(value, tuple) else [value]
    value = {"id": item.id, "categories": item.categories, "language": item.language, "created_at": item.created_at}[
        field
    ]
    return list(value) if isinstance(value, tuple) else [value] if value else []


def holds(condition: Filter, item: Item) -> bool:
    match condition:
        case AllOf(parts):
            return all(holds(part, item) for part in parts)
        case AnyOf(parts):
            return any(holds(part, item) for part in parts)
        case Not(part):
            return not holds(part, item)
        case FieldIn(_, field, wanted):
            return any(value in wanted for value in values_of(item, field))
        case NumberRange(_, field, low, high):
            return any((low is None or v >= low) and (high is None or v <= high) for v in values_of(item, field))
        case TimeRange(_, field, start, end):
            return any((start is None or v >= start) and (end is None or v < end) for v in values_of(item, field))
        case FieldExists(_, field):
            return bool(values_of(item, field))


@settings(max_examples=200, deadline=None)
@given(catalogue=st.lists(items, max_size=12), removed=st.sets(st.integers(0, 11)), condition=conditions)
def test_bitmaps_say_what_a_walk_over_the_items_says(
    catalogue: list[Item], removed: set[int], condition: Filter
) -> None:
    import dataclasses

    index, kept = FilterIndex(), {}
    catalogue = [dataclasses.replace(item, id=f"i{n}") for n, item in enumerate(catalogue)]
    for number, item in enumerate(catalogue):
        index.add(number, item)
        kept[number] = item
    for number in removed & kept.keys():
        index.remove(number, kept.pop(number))
    numbers = {item.id: number for number, item in kept.items()}
    found = set(index.matching(condition, numbers))
    expected = {number for number, item in kept.items() if holds(condition, item)}
    assert found == expected
    among = BitMap(list(kept)[::2])
    assert set(index.matching(condition, numbers, among)) == expected & set(among)


@settings(max_examples=60, deadline=None)
@given(catalogue=st.lists(items, max_size=10), now=moments)
def test_visible_is_inside_the_window_and_not_hidden(catalogue: list[Item], now: datetime) -> None:
    index = FilterIndex()
    for number, item in enumerate(catalogue):
        index.add(number, item)
    assert set(index.visible(now)) == {
        n
        for n, i in enumerate(catalogue)
        if i.available is not False
        and (i.available_from is None or i.available_from <= now)
        and (i.available_until is None or now < i.available_until)
    }
