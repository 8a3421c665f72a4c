"""The diversity that is told of served lists, beside its definition."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from ranking_service.diversity.variety import variety


def test_it_is_the_mean_over_all_pairs() -> None:
    vectors = np.random.default_rng(2).normal(size=(9, 12)).astype(np.float32)
    cosines = [a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in combinations(vectors, 2)]
    assert variety(vectors) == pytest.approx(1 - np.mean(cosines), abs=1e-5)
    with_empty = np.vstack([vectors, np.zeros((3, 12), np.float32)])
    assert variety(with_empty) == pytest.approx(variety(vectors))


def test_the_same_thing_is_no_variety_and_strangers_are_all_of_it() -> None:
    assert variety(np.ones((4, 3), np.float16)) == pytest.approx(0, abs=1e-6)
    assert variety(np.eye(4, dtype=np.float32)) == pytest.approx(1)


@pytest.mark.parametrize("rows", [0, 1])
def test_one_item_has_none(rows: int) -> None:
    assert variety(np.ones((rows, 3), np.float32)) is None
    assert variety(np.zeros((5, 3), np.float32)) is None
