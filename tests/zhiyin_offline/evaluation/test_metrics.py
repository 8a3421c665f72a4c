"""Metrics of lists against worked examples, scikit-learn and what must hold of any list."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, precision_score, recall_score

from zhiyin_offline.evaluation.metrics.accuracy import accuracy, places
from zhiyin_offline.evaluation.metrics.ratings import mean_absolute_error, root_mean_squared_error
from zhiyin_offline.evaluation.metrics.variety import (
    calibration,
    category_diversity,
    category_matrix,
    distinct_categories,
    exposure,
    gini,
    popularity_percentiles,
    self_information,
    serendipity,
    vector_diversity,
)

LISTS = st.permutations(range(30)).map(lambda order: np.array([order[:20]], dtype=np.int32))


def test_accuracy_of_a_worked_example() -> None:
    lists = np.array([[4, 7, 1, 0, 2, 3], [1, 2, 3, 4, 5, 6], [7, -1, -1, -1, -1, -1]], dtype=np.int32)
    targets = np.array([1, 0, 7], dtype=np.int32)
    assert places(lists, targets).tolist() == [3, math.inf, 1]
    found = accuracy(lists, targets, (2, 5))
    assert found["recall@2"].tolist() == found["hit_rate@2"].tolist() == [0, 0, 1]
    assert found["recall@5"].tolist() == [1, 0, 1]
    assert found["precision@5"].tolist() == [0.2, 0, 0.2]
    assert found["f1@5"] == pytest.approx([2 / 6, 0, 2 / 6])
    assert found["mrr@5"].tolist() == found["map@5"].tolist() == pytest.approx([1 / 3, 0, 1])
    assert found["ndcg@5"] == pytest.approx([0.5, 0, 1])


@given(LISTS, st.integers(0, 29), st.sampled_from([5, 10, 20]))
def test_accuracy_is_that_of_scikit_learn(lists: np.ndarray, target: int, k: int) -> None:
    found = accuracy(lists, np.array([target], dtype=np.int32), (k,))
    relevant, score = np.zeros((1, 30)), np.zeros((1, 30))
    relevant[0, target] = 1
    score[0, lists[0]] = np.arange(20, 0, -1)
    shown = np.zeros(30)
    shown[lists[0, :k]] = 1
    if target in lists[0]:  # scikit-learn spreads the ties of what is not listed
        assert found[f"ndcg@{k}"][0] == pytest.approx(ndcg_score(relevant, score, k=k))
    assert found[f"precision@{k}"][0] == pytest.approx(precision_score(relevant[0], shown))
    assert found[f"recall@{k}"][0] == pytest.approx(recall_score(relevant[0], shown))


@given(LISTS, st.integers(0, 29))
def test_accuracy_only_grows_with_the_list(lists: np.ndarray, target: int) -> None:
    found = accuracy(lists, np.array([target], dtype=np.int32))
    for name in ("recall", "ndcg", "mrr", "map", "hit_rate"):
        values = [found[f"{name}@{k}"][0] for k in (5, 10, 20)]
        assert 0 <= values[0] <= values[1] <= values[2] <= 1


def test_vector_diversity_is_one_less_the_mean_cosine() -> None:
    vectors = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[5] = 0
    lists = np.array([[0, 1, 2, 5], [3, 4, -1, -1], [3, -1, -1, -1]], dtype=np.int32)
    found = vector_diversity(lists, vectors)
    mean = np.mean([vectors[a] @ vectors[b] for a, b in itertools.combinations((0, 1, 2), 2)])
    assert found[0] == pytest.approx(1 - mean, abs=1e-6)
    assert found[1] == pytest.approx(1 - vectors[3] @ vectors[4], abs=1e-6)
    assert math.isnan(found[2])


def test_category_metrics_of_a_worked_example() -> None:
    categories = category_matrix([["a", "b"], ["b", "c"], ["d"], []])
    lists = np.array([[0, 1, 2], [0, 3, -1], [3, -1, -1]], dtype=np.int32)
    assert distinct_categories(lists, categories)[:2].tolist() == [4, 2]
    # Jaccard of the pairs: 1/3, 0, 0.
    found = category_diversity(lists, categories)
    assert found[0] == pytest.approx(1 - 1 / 9)
    assert math.isnan(found[1])
    assert math.isnan(distinct_categories(lists, categories)[2])


def test_novelty_is_self_information() -> None:
    assert self_information(np.array([7, 0], dtype=np.float32), 15) == pytest.approx([1.0, 4.0])


def test_popularity_percentiles_count_equals_half() -> None:
    assert popularity_percentiles(np.array([5, 1, 1, 9], dtype=np.float32)) == pytest.approx([0.625, 0.25, 0.25, 0.875])


def test_serendipity_is_a_hit_that_popularity_misses() -> None:
    lists = np.array([[1, 2], [1, 2], [1, 2]], dtype=np.int32)
    expected = np.array([[1, 9], [8, 9], [8, 9]], dtype=np.int32)
    assert serendipity(lists, np.array([1, 1, 5], dtype=np.int32), expected).tolist() == [0, 1, 0]


def test_gini_and_coverage() -> None:
    assert gini(np.array([1.0, 1, 1, 1])) == pytest.approx(0)
    assert gini(np.array([0.0, 0, 0, 1])) == pytest.approx(0.75)
    shown = exposure(np.array([[0, 1], [0, -1]], dtype=np.int32), 4)
    assert shown["coverage@10"] == 0.5
    assert shown["gini@10"] == pytest.approx(gini(np.array([2.0, 1, 0, 0])))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_gini_is_the_mean_absolute_difference(amounts: list[int]) -> None:
    values = np.array(amounts, dtype=np.float64)
    differences = np.abs(values[:, None] - values[None, :]).mean()
    expected = differences / (2 * values.mean()) if values.sum() else 0.0
    assert gini(values) == pytest.approx(expected, abs=1e-9)


def test_calibration_is_steck_s_divergence() -> None:
    categories = category_matrix([["a"], ["b"], ["a", "b"], []])
    histories = sp.csr_matrix(np.array([[1.0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]]))
    lists = np.array([[1, -1], [0, 1], [0, 1]], dtype=np.int32)
    found = calibration(lists, histories, categories)
    p, q = np.array([0.75, 0.25]), np.array([0.0, 1.0])
    smoothed = 0.99 * q + 0.01 * p
    assert found[0] == pytest.approx(float((p * np.log(p / smoothed)).sum()))
    assert found[1] == pytest.approx(0, abs=1e-12)
    assert math.isnan(found[2])


def test_rating_errors_of_a_worked_example() -> None:
    predicted, given_ = np.array([1.0, 2, 3]), np.array([1.0, 4, 2])
    assert mean_absolute_error(predicted, given_) == pytest.approx(1.0)
    assert root_mean_squared_error(predicted, given_) == pytest.approx(math.sqrt(5 / 3))
