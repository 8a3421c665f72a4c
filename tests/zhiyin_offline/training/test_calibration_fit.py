"""The maps from scores to chances and the figures they are judged by, against formulas and known truths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ranking_service.scorers.calibration import Knots, Logistic
from zhiyin_offline.training.calibration_fit import (
    brier,
    expected_calibration_error,
    fit,
    fit_isotonic,
    fit_logistic,
    reliability,
)


def drawn(count: int, slope: float, intercept: float, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    scores = random.normal(1.0, 2.0, count)
    return scores, random.random(count) < 1 / (1 + np.exp(-(slope * scores + intercept)))


def test_two_parameters_are_found_again() -> None:
    scores, acted = drawn(40_000, 0.9, -2.5)
    found = fit_logistic(scores, acted)
    assert found.slope == pytest.approx(0.9, abs=0.05)
    assert found.intercept == pytest.approx(-2.5, abs=0.08)


def test_platt_s_targets_keep_what_can_be_separated_from_becoming_certain() -> None:
    """Where scores part the outcomes, the best logistic curve gives each side its smoothed target, not 0 and 1."""
    scores = np.array([0.0] * 8 + [1.0] * 3)
    found = fit_logistic(scores, scores > 0.5)
    low, high = found.chances(np.array([0, 1], np.float32)).tolist()
    assert low == pytest.approx(1 / 10, abs=1e-3)
    assert high == pytest.approx(4 / 5, abs=1e-3)


def test_scores_that_say_the_opposite_give_the_rate_and_no_falling_map() -> None:
    scores, acted = drawn(5_000, -0.8, -1.0)
    for found in (fit_logistic(scores, acted), fit_isotonic(scores, acted)):
        chances = found.chances(np.linspace(-6, 8, 50).astype(np.float32))
        assert np.ptp(chances) < 0.02
        assert chances.mean() == pytest.approx(acted.mean(), abs=0.02)


def test_any_rising_shape_is_followed_where_a_logistic_curve_cannot() -> None:
    random = np.random.default_rng(1)
    scores = random.uniform(0, 3, 60_000)
    truth = np.select([scores < 1, scores < 2], [0.05, 0.3], 0.35)
    acted = random.random(len(scores)) < truth
    inside = (np.abs(scores - 1) > 0.1) & (np.abs(scores - 2) > 0.1)
    errors = {
        name: np.abs(found.chances(scores.astype(np.float32)) - truth)[inside].mean()
        for name, found in (("any", fit_isotonic(scores, acted)), ("two", fit_logistic(scores, acted)))
    }
    assert errors["any"] < 0.012
    assert errors["any"] < errors["two"] / 3


@given(
    st.lists(st.tuples(st.floats(-50, 50, width=32), st.booleans()), min_size=2, max_size=300),
    st.sampled_from([fit_logistic, fit_isotonic]),
)
@settings(max_examples=120, deadline=None)
def test_every_map_rises_and_knows_no_certainty(rows: list[tuple[float, bool]], how: object) -> None:
    scores, acted = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if acted.all() or not acted.any():
        acted[0] = not acted[0]
    found = how(scores, acted)  # type: ignore[operator]
    chances = found.chances(np.sort(scores).astype(np.float32))
    assert (np.diff(chances) >= -1e-6).all()
    assert ((chances > 0) & (chances < 1)).all()


def test_few_positives_get_two_parameters_and_many_any_shape() -> None:
    scores, acted = drawn(20_000, 1.0, -1.0)
    few = np.flatnonzero(acted)[999:]
    assert isinstance(fit(np.delete(scores, few), np.delete(acted, few)), Logistic)
    assert isinstance(fit(scores, acted), Knots)


def test_figures_by_their_formulas() -> None:
    chances = np.array([0.1] * 10 + [0.4] * 10 + [0.8] * 20)
    acted = np.array([True] * 3 + [False] * 7 + [True] * 4 + [False] * 6 + [True] * 10 + [False] * 10)
    # Ten bins of four. Only the bins' own means count: .1 against 3 of 10, .4 against 4 of 10, .8 against 10 of 20.
    by_hand = 0.0
    for start in range(0, 40, 4):
        by_hand += abs(chances[start : start + 4].mean() - acted[start : start + 4].mean()) / 10
    assert expected_calibration_error(chances, acted) == pytest.approx(by_hand)
    assert brier(chances, acted).mean() == pytest.approx(
        (3 * 0.81 + 7 * 0.01 + 4 * 0.36 + 6 * 0.16 + 10 * 0.04 + 10 * 0.64) / 40
    )
    table = reliability(chances, acted)
    assert [row["impressions"] for row in table] == [4] * 10
    assert sum(row["observed"] * row["impressions"] for row in table) == pytest.approx(17)
    assert [row["predicted"] for row in table] == sorted(row["predicted"] for row in table)


def test_what_is_right_has_no_error_and_what_is_twice_too_much_has_the_rate() -> None:
    scores, acted = drawn(100_000, 1.0, -3.0)
    right = 1 / (1 + np.exp(-(scores - 3.0)))
    assert expected_calibration_error(right, acted) < 0.005
    assert expected_calibration_error(2 * right, acted) == pytest.approx(acted.mean(), rel=0.05)
