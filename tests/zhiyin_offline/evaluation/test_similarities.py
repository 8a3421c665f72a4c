"""Cosine, Pearson and Jaccard against worked values and other people's code."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jaccard as scipy_jaccard
from sklearn.metrics.pairwise import cosine_similarity

from zhiyin_offline.evaluation.similarities import all_pairs, cosine, jaccard, pearson, strongest

MATRICES = arrays(np.float32, (5, 7), elements=st.integers(0, 3).map(float))


def test_worked_values() -> None:
    assert cosine((1, 2, 3), (4, 5, 6)) == pytest.approx(0.9746, abs=5e-5)
    assert pearson((1, 2, 3), (4, 5, 6)) == pytest.approx(1.0)
    assert jaccard({1, 2, 3}, {3, 4, 5}) == pytest.approx(0.2)


def test_what_says_nothing_is_like_nothing() -> None:
    assert cosine((0, 0), (1, 2)) == 0
    assert pearson((1, 1), (1, 2)) == 0
    assert jaccard([], []) == 0


@given(MATRICES, MATRICES)
def test_all_pairs_are_what_others_compute(a: np.ndarray, b: np.ndarray) -> None:
    left, right = sp.csr_matrix(a), sp.csr_matrix(b)
    assert np.allclose(all_pairs("cosine", left, right), cosine_similarity(a, b), atol=1e-5)
    correlations, sets = all_pairs("pearson", left, right), all_pairs("jaccard", left, right)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            if x.std() > 0 and y.std() > 0:
                assert correlations[i, j] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-5)
            if x.any() or y.any():
                assert sets[i, j] == pytest.approx(1 - scipy_jaccard(x > 0, y > 0), abs=1e-6)


@given(arrays(np.float32, (4, 6), elements=st.floats(-1, 1, width=32)), st.integers(1, 8))
def test_the_strongest_are_kept(similarities: np.ndarray, neighbours: int) -> None:
    kept = strongest(similarities, neighbours).toarray()
    for row, left in zip(similarities, kept, strict=True):
        expected = np.sort(row[row > 0])[::-1][:neighbours]
        assert np.array_equal(np.sort(left[left > 0])[::-1], expected)
