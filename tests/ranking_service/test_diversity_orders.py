"""MSD, MMR and DPP against oracles, and the promises of the one knob."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
import pyversity
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking_service.diversity.dpp import dpp_order
from ranking_service.diversity.knob import Knob, diverse_order, unit_scale
from ranking_service.diversity.likeness import with_categories
from ranking_service.diversity.mmr import mmr_order
from ranking_service.diversity.msd import msd_order
from ranking_service.query import DEFAULT_DIVERSITY, DiversityMethod

METHODS = (DiversityMethod.MSD, DiversityMethod.MMR, DiversityMethod.DPP)


def instance(seed: int, n: int = 40, d: int = 16, clusters: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Falling scores and clustered unit vectors; clusters differ in how relevant they are."""
    random = np.random.default_rng(seed)
    of = random.integers(0, clusters, n)
    vectors = random.standard_normal((clusters, d))[of] + 0.6 * random.standard_normal((n, d))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = random.standard_normal(clusters)[of] + 0.7 * random.standard_normal(n)
    order = np.argsort(-scores)
    return scores[order].astype(np.float32), vectors[order].astype(np.float32)


def variety(vectors: np.ndarray, rows: list[int]) -> float:
    chosen = vectors[rows]
    n = len(rows)
    return 1.0 - float((chosen @ chosen.T).sum() - n) / (n * (n - 1))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("diversity", [0.1, 0.3, 0.5, 0.8, 1.0])
def test_mmr_chooses_what_pyversity_chooses(seed: int, diversity: float) -> None:
    scores, vectors = instance(seed)
    # Positive cosines only: the oracle counts negative ones as 0.
    vectors = np.abs(vectors)
    relevance = unit_scale(scores)
    oracle = pyversity.diversify(
        embeddings=vectors, scores=relevance, k=15, strategy=pyversity.Strategy.MMR, diversity=diversity
    )
    assert list(islice(mmr_order(relevance, vectors, diversity), 15)) == oracle.indices.tolist()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("diversity", [0.3, 0.6, 1.0])
def test_dpp_takes_the_row_that_adds_most_to_the_determinant(seed: int, diversity: float) -> None:
    scores, vectors = instance(seed, n=14, d=20)
    relevance = unit_scale(scores).astype(np.float64)
    quality = np.exp(2 * (1 - diversity) / diversity * relevance)
    kernel = quality[:, None] * (vectors @ vectors.T + 1e-3 * np.eye(14)) * quality[None]
    chosen = [0]
    for _ in range(7):
        rest = [row for row in range(14) if row not in chosen]
        gains = [np.linalg.slogdet(kernel[np.ix_([*chosen, row], [*chosen, row])])[1] for row in rest]
        chosen.append(rest[int(np.argmax(gains))])
    assert list(islice(dpp_order(unit_scale(scores), vectors, diversity), 8)) == chosen


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(0, 60),
    diversity=st.floats(0, 1),
    method=st.sampled_from(list(DiversityMethod)),
    zeros=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_every_order_is_a_permutation_and_the_same_again(
    seed: int, n: int, diversity: float, method: DiversityMethod, zeros: bool
) -> None:
    scores, vectors = instance(seed, n=max(n, 1))
    scores, vectors = scores[:n], vectors[:n].copy()
    if zeros:
        vectors[::2] = 0.0
    order = list(diverse_order(scores, vectors, diversity, method))
    assert sorted(order) == list(range(n))
    assert order == list(diverse_order(scores, vectors, diversity, method))


@pytest.mark.parametrize("method", METHODS)
def test_no_diversity_is_the_order_of_scores(method: DiversityMethod) -> None:
    scores, vectors = instance(3)
    assert list(diverse_order(scores, vectors, 0.0, method)) == list(range(40))


def test_none_ignores_the_knob() -> None:
    scores, vectors = instance(3)
    assert list(diverse_order(scores, vectors, 1.0, DiversityMethod.NONE)) == list(range(40))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(10))
def test_the_first_places_are_kept_up_to_the_default(method: DiversityMethod, seed: int) -> None:
    scores, vectors = instance(seed)
    for diversity in (0.05, 0.2, DEFAULT_DIVERSITY):
        assert list(islice(diverse_order(scores, vectors, diversity, method), 6)) == [0, 1, 2, 3, 4, 5]
        few = Knob(kept=2)
        assert list(islice(diverse_order(scores, vectors, diversity, method, few), 2)) == [0, 1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [{"n": 40, "d": 16, "clusters": 5}, {"n": 200, "d": 64, "clusters": 20}])
def test_a_higher_knob_gives_more_variety(method: DiversityMethod, shape: dict[str, int]) -> None:
    instances = [instance(seed, **shape) for seed in range(60)]
    means = []
    for knob in (0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0):
        lists = [list(islice(diverse_order(scores, vectors, knob, method), 10)) for scores, vectors in instances]
        means.append(np.mean([variety(v, rows) for (_, v), rows in zip(instances, lists, strict=True)]))
    # A greedy choice is no optimum: where variety has nowhere to go any more it may waver in the third digit.
    assert all(after >= before - 0.003 for before, after in pairwise(means)), means
    assert means[2] > means[0] + 0.02
    assert means[-1] > means[2] + 0.02


@pytest.mark.parametrize("method", METHODS)
def test_two_groups_take_turns_at_full_diversity(method: DiversityMethod) -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 0, 0, 1, 2]]
    scores = np.array([6, 5, 4, 3, 2, 1], dtype=np.float32)
    assert set(islice(diverse_order(scores, vectors, 1.0, method), 3)) == {0, 4, 5}


@pytest.mark.parametrize("method", METHODS)
def test_a_duplicate_waits_for_something_else(method: DiversityMethod) -> None:
    vectors = np.eye(5, dtype=np.float32)[[0, 1, 2, 0, 3, 4]]
    scores = np.array([10, 9, 8, 7, 6.9, 6.8], dtype=np.float32)
    order = list(diverse_order(scores, vectors, DEFAULT_DIVERSITY, method, Knob(kept=3)))
    assert order[:3] == [0, 1, 2]
    assert order[3] == 4


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("diversity", [0.1, 0.3, 0.5, 0.8, 1.0])
def test_msd_takes_the_row_with_the_best_sum_of_relevance_and_mean_distance(seed: int, diversity: float) -> None:
    scores, vectors = instance(seed)
    relevance = unit_scale(scores)
    chosen = [0]
    while len(chosen) < 12:
        rest = [row for row in range(len(scores)) if row not in chosen]
        gains = [
            (1 - diversity) * relevance[row] + diversity * np.mean([1 - vectors[row] @ vectors[c] for c in chosen])
            for row in rest
        ]
        chosen.append(rest[int(np.argmax(gains))])
    assert list(islice(msd_order(relevance, vectors, diversity), 12)) == chosen


@pytest.mark.parametrize("weight", [0.1, 0.45, 0.8])
def test_the_knob_runs_from_no_variety_to_nothing_else_through_its_default(weight: float) -> None:
    knob = Knob(weight, 7)
    settings_of_the_knob = np.linspace(0, 1, 101)
    weights = [knob.weight_at(d) for d in settings_of_the_knob]
    assert weights[0] == 0
    assert weights[-1] == 1
    assert knob.weight_at(DEFAULT_DIVERSITY) == pytest.approx(weight)
    assert all(after > before for before, after in pairwise(weights))
    kept = [knob.kept_at(d) for d in settings_of_the_knob]
    assert kept[0] == 7
    assert kept[-1] == 1
    assert all(after <= before for before, after in pairwise(kept))


def test_categories_count_three_tenths_of_likeness() -> None:
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    both = with_categories(vectors, [["drama", "war"], ["drama"], ["drama", "war"], []])
    likeness = both @ both.T
    assert likeness[0, 1] == pytest.approx(0.7 + 0.3 / 2**0.5)
    assert likeness[0, 2] == pytest.approx(0.3)
    assert likeness[0, 3] == pytest.approx(0)
    assert likeness[3, 3] == pytest.approx(0.7)
    assert with_categories(vectors, [[], [], [], []]) is vectors
