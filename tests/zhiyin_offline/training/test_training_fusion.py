"""Learned weights: those that made the choices are found, and nothing counts against a candidate."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking_service.scorers.features import NAMES, SOURCES
from tests.zhiyin_offline.training.planted import COLUMN, planted
from zhiyin_offline.training.blend_table import BlendTable
from zhiyin_offline.training.examples import Example
from zhiyin_offline.training.fusion import fit_weights

TRUE = {"history": 1.5, "transition": 0.8, "sequence": 2.5}
SILENT = ("query", "profile", "fresh")


def test_the_weights_that_made_the_choices_are_found() -> None:
    weights = fit_weights(BlendTable.of(planted(2_000, TRUE, silent=SILENT)))
    for name, column in COLUMN.items():
        expected = TRUE.get(name, 0.0)
        assert abs(weights[column] - expected) < 0.12, name
        if name in SILENT:
            assert weights[column] == 0  # never heard: no weight, not a small one


def test_a_source_that_is_wrong_gets_no_weight_rather_than_a_negative_one() -> None:
    weights = fit_weights(BlendTable.of(planted(800, {"history": 1.0, "popular": -0.7})))
    assert weights[COLUMN["popular"]] == 0
    assert weights[COLUMN["history"]] > 0.8


def test_an_example_whose_target_nobody_found_changes_nothing() -> None:
    found = planted(300, TRUE)
    lost = planted(300, {}, seed=1, misses=1.0)
    assert np.allclose(fit_weights(BlendTable.of([*lost, *found])), fit_weights(BlendTable.of(found)), atol=1e-4)


def test_nothing_to_learn_from_gives_no_weight() -> None:
    assert fit_weights(BlendTable.of([])).tolist() == [0.0] * len(SOURCES)
    assert fit_weights(BlendTable.of(planted(5, {}, misses=1.0))).tolist() == [0.0] * len(SOURCES)


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    scale=st.sampled_from([1e-3, 1.0, 10.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_weights_are_finite_and_never_negative_whatever_is_said(sizes: list[int], scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    examples = []
    for n in sizes:
        opinions = (scale * random.standard_normal((n, len(SOURCES)))).astype(np.float32)
        nothing = np.zeros(n, np.float32)
        columns = np.zeros((n, len(NAMES)), np.float16)
        examples.append(
            Example(int(random.integers(-1, n)), opinions, nothing, nothing, np.full(n, -1, np.int64), columns)
        )
    weights = fit_weights(BlendTable.of(examples))
    assert weights.shape == (len(SOURCES),)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()


def test_the_order_of_the_examples_does_not_matter() -> None:
    examples = planted(200, TRUE)
    assert np.allclose(fit_weights(BlendTable.of(examples)), fit_weights(BlendTable.of(examples[::-1])), atol=1e-3)
