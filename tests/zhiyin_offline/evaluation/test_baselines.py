"""Every baseline against what its formula says, and what all have in common."""

from __future__ import annotations

import numpy as np
import pytest

from tests.zhiyin_offline.evaluation.recorded import generated, purchases
from zhiyin_offline.evaluation.baselines.all_baselines import BASELINES, baselines
from zhiyin_offline.evaluation.baselines.als import AlsScorer
from zhiyin_offline.evaluation.baselines.biased_factorisation import BiasedFactorisation
from zhiyin_offline.evaluation.baselines.ease import EaseScorer
from zhiyin_offline.evaluation.baselines.item_knn import ItemKnnScorer
from zhiyin_offline.evaluation.baselines.popularity import PopularityScorer
from zhiyin_offline.evaluation.baselines.svd import SvdScorer
from zhiyin_offline.evaluation.baselines.text import TextScorer
from zhiyin_offline.evaluation.baselines.user_knn import UserKnnScorer
from zhiyin_offline.evaluation.interactions import query_matrix, training_matrix
from zhiyin_offline.evaluation.methods import ScoredMethod, top_k
from zhiyin_offline.evaluation.metrics.accuracy import accuracy
from zhiyin_offline.evaluation.protocols import leave_one_out

WORLD, VECTORS = generated()
SPLIT = leave_one_out(WORLD)
TARGETS = np.array([case.target for case in SPLIT.cases], dtype=np.int32)


@pytest.mark.parametrize("name", BASELINES)
def test_lists_are_whole_without_history_and_the_same_again(name: str) -> None:
    method = baselines(VECTORS)[name](7)
    method.fit(WORLD, SPLIT)
    lists = method.rank(SPLIT.cases, 20)
    assert method.name == name
    for case, listed in zip(SPLIT.cases, lists, strict=True):
        assert len(set(listed.tolist()) - {-1}) == 20
        assert not set(listed.tolist()) & set(WORLD.events.item[case.history].tolist())
    again = baselines(VECTORS)[name](7)
    again.fit(WORLD, SPLIT)
    assert np.array_equal(again.rank(SPLIT.cases, 20), lists)


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "popularity"])
def test_all_that_look_at_the_user_find_more_than_popularity_does(name: str) -> None:
    def recall(of: str) -> float:
        method = baselines(VECTORS)[of](0)
        method.fit(WORLD, SPLIT)
        return float(accuracy(method.rank(SPLIT.cases, 20), TARGETS)["recall@20"].mean())

    assert recall(name) > recall("popularity") + 0.05


def test_popularity_counts_users() -> None:
    world = purchases([(0, 1, 1), (0, 1, 2), (1, 1, 3), (1, 2, 4), (1, 3, 5), (1, 0, 6), (1, 4, 7)], 5)
    split = leave_one_out(world)
    scorer = PopularityScorer()
    scorer.fit(world, split)
    assert scorer.scores(split.cases)[0].tolist() == [1, 2, 1, 1, 0]  # the target, item 4, is not learned from


def test_the_query_is_the_distinct_history_by_age() -> None:
    world = purchases([(0, 1, 1), (0, 2, 2), (0, 1, 3), (0, 3, 4)], 5)
    query = query_matrix(world, leave_one_out(world).cases, 0.5).toarray()
    assert query.tolist() == [[0, 1, 0.5, 0, 0]]


def test_ease_is_its_closed_form() -> None:
    scorer = EaseScorer(regularization=20.0)
    scorer.fit(WORLD, SPLIT)
    x = training_matrix(WORLD, SPLIT.training).toarray().astype(np.float64)
    inverse = np.linalg.inv(x.T @ x + 20 * np.eye(x.shape[1]))
    model = -inverse / np.diag(inverse)
    np.fill_diagonal(model, 0)
    expected = query_matrix(WORLD, SPLIT.cases, 0.6).toarray() @ model
    assert np.allclose(scorer.scores(SPLIT.cases), expected, atol=1e-4)


def test_ease_on_a_large_catalogue_leaves_out_what_few_acted_on() -> None:
    scorer = EaseScorer(max_items=30)
    scorer.fit(WORLD, SPLIT)
    users = np.asarray(training_matrix(WORLD, SPLIT.training).sum(axis=0)).ravel()
    left_out = np.flatnonzero(~scorer.scores(SPLIT.cases).any(axis=0))
    assert len(left_out) == len(users) - 30
    assert users[left_out].max() <= np.sort(users)[-30]


def test_svd_projects_on_the_leading_vectors() -> None:
    scorer = SvdScorer(rank=10)
    scorer.fit(WORLD, SPLIT)
    x = training_matrix(WORLD, SPLIT.training).toarray()
    basis = np.linalg.svd(x, full_matrices=False)[2][:10]
    expected = query_matrix(WORLD, SPLIT.cases).toarray() @ basis.T @ basis
    assert np.allclose(scorer.scores(SPLIT.cases), expected, atol=1e-3)


def test_als_folds_a_history_in_as_it_fitted_users() -> None:
    """At convergence, the user factors of training are what folding the same rows in gives."""
    split = leave_one_out(WORLD)
    scorer = AlsScorer(factors=8, regularization=1.0, iterations=40)
    scorer.fit(WORLD, split)
    x = training_matrix(WORLD, split.training).toarray()
    items = scorer._items.astype(np.float64)
    case = split.cases[0]
    weights = 1 + 9 * x[case.user]
    expected = np.linalg.solve((items.T * weights) @ items + np.eye(8), items.T @ (weights * x[case.user]))
    assert np.allclose(scorer.scores([case])[0], items @ expected, atol=1e-3)


def test_item_knn_adds_similarities_of_neighbours() -> None:
    scorer = ItemKnnScorer("cosine", neighbours=90, decay=1.0)
    scorer.fit(WORLD, SPLIT)
    x = training_matrix(WORLD, SPLIT.training).toarray()
    lengths = np.linalg.norm(x, axis=0)
    cosines = np.divide(
        x.T @ x, np.outer(lengths, lengths), out=np.zeros((90, 90)), where=np.outer(lengths, lengths) > 0
    )
    np.fill_diagonal(cosines, 0)
    expected = query_matrix(WORLD, SPLIT.cases).toarray() @ cosines
    assert np.allclose(scorer.scores(SPLIT.cases), expected, atol=1e-4)


def test_user_knn_does_not_ask_the_user_s_own_past() -> None:
    world = purchases([(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 0, 1), (1, 3, 2)], 4)
    split = leave_one_out(world, include_history=True)
    scorer = UserKnnScorer("jaccard")
    scorer.fit(world, split)
    # User 1 shares one of three items; items 1 and 2 are only the user's own.
    assert scorer.scores(split.cases)[0] == pytest.approx([1 / 3, 0, 0, 1 / 3])


def test_text_is_the_cosine_with_the_history_after_centring() -> None:
    scorer = TextScorer(VECTORS)
    scorer.fit(WORLD, SPLIT)
    centred = VECTORS - VECTORS.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    expected = query_matrix(WORLD, SPLIT.cases, 0.6).toarray() @ centred @ centred.T
    assert np.allclose(scorer.scores(SPLIT.cases), expected, atol=1e-4)


def test_there_is_no_text_method_without_words() -> None:
    assert "text" not in baselines(np.zeros_like(VECTORS))


@pytest.mark.parametrize("include_history", [False, True])
def test_users_without_history_get_a_list(include_history: bool) -> None:
    world = purchases([(0, item, float(item)) for item in range(30)], 31)
    split = leave_one_out(world, include_history=include_history)
    empty = [type(split.cases[0])(0, 1, 29, 29.0, np.empty(0, dtype=np.int64))]
    for make in baselines(np.eye(31, 8, dtype=np.float32)).values():
        method = make(0)
        method.fit(world, split)
        assert np.all(method.rank(empty, 20) >= 0)


def test_equal_scores_come_in_an_order_of_the_seed_and_not_of_the_catalogue() -> None:
    class Equal:
        name = "equal"

        def fit(self, dataset: object, split: object) -> None: ...

        def scores(self, cases: list[object]) -> np.ndarray:
            return np.zeros((len(cases), 90), dtype=np.float32)

    orders = []
    for seed in (0, 0, 1):
        method = ScoredMethod(Equal(), seed)  # type: ignore[arg-type]
        method.fit(WORLD, SPLIT)
        orders.append(method.rank(SPLIT.cases[:1], 20)[0].tolist())
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_top_k_is_a_stable_sort() -> None:
    scores = np.random.default_rng(0).integers(0, 4, (20, 15)).astype(np.float32)
    scores[3, :12] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :6]
    expected = np.where(np.take_along_axis(scores, expected, axis=1) == -np.inf, -1, expected)
    assert np.array_equal(top_k(scores, 6), expected)


def test_ratings_are_predicted_better_than_by_the_mean() -> None:
    rng = np.random.default_rng(0)
    users, items = (part.astype(np.int32) for part in np.divmod(rng.permutation(60 * 40)[:1600], 40))
    p, q = rng.normal(0, 0.7, (60, 2)), rng.normal(0, 0.7, (40, 2))
    bias_u, bias_i = rng.normal(0, 0.5, 60), rng.normal(0, 0.5, 40)
    ratings = 3 + bias_u[users] + bias_i[items] + (p[users] * q[items]).sum(axis=1) + rng.normal(0, 0.2, len(users))
    model = BiasedFactorisation(factors=4)
    model.fit(users[:1300], items[:1300], ratings[:1300], 60, 40)
    error = np.abs(model.predict(users[1300:], items[1300:]) - ratings[1300:]).mean()
    biases = np.abs(3 + bias_u[users] + bias_i[items] - ratings)[1300:].mean()  # the best that biases alone can do
    assert error < 0.85 * biases


def test_a_user_without_ratings_is_average() -> None:
    model = BiasedFactorisation()
    model.fit(np.array([0], np.int32), np.array([0], np.int32), np.array([4.0]), 2, 2)
    assert model.predict(np.array([1], np.int32), np.array([1], np.int32)) == pytest.approx([4.0])


def test_methods_of_several_seeds_share_what_the_seed_does_not_change() -> None:
    make = baselines(VECTORS)["ease"]
    first = make(0)
    first.fit(WORLD, SPLIT)
    second = make(1)
    second.fit(WORLD, SPLIT)
    assert np.array_equal(first.rank(SPLIT.cases, 5), second.rank(SPLIT.cases, 5))  # no equals among the first
    other = leave_one_out(WORLD, "validation")
    second.fit(WORLD, other)
    fresh = baselines(VECTORS)["ease"](1)
    fresh.fit(WORLD, other)
    assert np.array_equal(second.rank(other.cases, 5), fresh.rank(other.cases, 5))
