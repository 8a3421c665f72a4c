"""Standard errors and the paired bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from zhiyin_offline.evaluation.metrics.significance import PairedBootstrap, mean_and_error


def test_with_one_case_a_user_the_error_is_the_textbook_s() -> None:
    values = np.random.default_rng(0).normal(size=400)
    mean, error = mean_and_error(values, np.arange(400))
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(stats.sem(values))


def test_cases_of_one_user_do_not_count_as_independent() -> None:
    values, users = np.random.default_rng(0).normal(size=100), np.arange(100)
    once = mean_and_error(values, users)
    assert mean_and_error(np.repeat(values, 9), np.repeat(users, 9)) == pytest.approx(once)


def test_unknown_values_are_left_out() -> None:
    mean, error = mean_and_error(np.array([1.0, math.nan, 3.0]), np.arange(3))
    assert (mean, error) == (2.0, 1.0)
    assert all(math.isnan(x) for x in mean_and_error(np.array([math.nan]), np.array([0])))


def test_the_bootstrap_s_interval_is_near_that_of_the_t_test() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(size=600)
    second = first - 0.05 + 0.4 * rng.normal(size=600)
    found = PairedBootstrap(np.column_stack([first, second]), np.arange(600)).compare(0, 1)
    t = stats.ttest_rel(first, second)
    low, high = t.confidence_interval(0.95)
    assert found.difference == pytest.approx((first - second).mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.003)
    assert found.p == pytest.approx(t.pvalue, abs=0.01)


def test_verdicts() -> None:
    rng = np.random.default_rng(2)
    base = rng.random(300)
    table = np.column_stack([base, base + 0.1 * rng.random(300), base + rng.normal(0, 0.5, 300), base])
    bootstrap = PairedBootstrap(table, np.arange(300))
    better = bootstrap.compare(1, 0)
    assert (better.verdict, better.reversed().verdict) == ("win", "lose")
    assert better.p < 0.001
    assert better.reversed().low == -better.high
    assert bootstrap.compare(0, 3).verdict == "undecided"
    assert bootstrap.compare(0, 3).p == 1.0


def test_the_same_seed_draws_the_same_users() -> None:
    table, users = np.random.default_rng(3).random((50, 2)), np.arange(50) % 20
    assert PairedBootstrap(table, users, 500).compare(0, 1) == PairedBootstrap(table, users, 500).compare(0, 1)
