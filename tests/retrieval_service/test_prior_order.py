"""The order of priors against a plain sort, for sets that are sorted at once and for those that are cut into levels."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from retrieval_service import prior_order
from retrieval_service.prior_order import PriorOrder

priors = st.none() | st.sampled_from([0.0, 0.2, 0.5, 0.501, 1.0]) | st.floats(0, 1)


@settings(max_examples=150, deadline=None)
@given(
    first=st.lists(priors, max_size=60),
    second=st.dictionaries(st.integers(0, 59), priors),
    gone=st.sets(st.integers(0, 59)),
    found=st.sets(st.integers(0, 59)),
    count=st.integers(1, 70),
    small=st.sampled_from([2, 1000]),
)
def test_the_best_are_the_best_however_they_are_found(
    first: list[float | None],
    second: dict[int, float | None],
    gone: set[int],
    found: set[int],
    count: int,
    small: int,
) -> None:
    kept = dict(enumerate(first))
    order = PriorOrder()
    for number, prior in kept.items():
        order.add(number, prior)
    for number, prior in second.items():
        if number in kept:
            order.remove(number, kept[number])
            kept[number] = prior
            order.add(number, prior)
    for number in gone & kept.keys():
        order.remove(number, kept.pop(number))
    found &= kept.keys()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prior_order, "_SMALL", small)
        best = order.best(BitMap(found), count)
        assert best == order.best(BitMap(found), 1000)[:count], "the first few do not depend on how many are asked for"
        patch.setattr(prior_order, "_SMALL", 1000)
        assert best == order.best(BitMap(found), count), "both ways give one order"
    assert len(best) == min(count, len(found)) == len(set(best))
    keys = [_key(kept[number]) for number in best]
    assert keys == sorted(map(_key, (kept[number] for number in found)))[: len(best)]


def _key(prior: float | None) -> tuple[float, bool]:
    return (-0.5 if prior is None else -prior, prior is None)


@pytest.mark.parametrize("prior_of", [lambda n: None, lambda n: (n % 5) / 4, lambda n: random.Random(n).random()])
def test_ties_are_dealt_without_regard_to_the_order_of_writing(prior_of: Callable[[int], float | None]) -> None:
    order = PriorOrder()
    for number in range(20_000):
        order.add(number, prior_of(number))
    best = order.best(BitMap(range(20_000)), 100)
    assert 6_000 < sum(best) / len(best) < 14_000
    assert best != sorted(best)
