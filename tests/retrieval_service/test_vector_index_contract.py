"""One contract suite over every implementation of VectorIndex, with numpy as the oracle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval_service.exact_index import ExactIndex
from retrieval_service.hnsw_index import HnswIndex
from retrieval_service.vector_index import VectorIndex

DIMENSIONS = 24


def unit_vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, DIMENSIONS))
    vectors = centres[rng.integers(0, 12, count)] + 0.7 * rng.standard_normal((count, DIMENSIONS))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=[ExactIndex, HnswIndex], ids=["exact", "hnsw"])
def make(request: pytest.FixtureRequest) -> Callable[[], VectorIndex]:
    return lambda: request.param(DIMENSIONS, capacity=16)


def best(vectors: NDArray[np.float32], query: NDArray[np.float32], limit: int, without: set[int]) -> set[int]:
    order = [i for i in np.argsort(-(vectors @ query), kind="stable").tolist() if i not in without]
    return set(order[:limit])


def recall(index: VectorIndex, vectors: NDArray[np.float32], removed: set[int], limit: int = 10) -> float:
    found = []
    for query in unit_vectors(40, seed=99):
        expected = best(vectors, query, limit, removed)
        got = set(index.search(query, limit).tolist()[: limit + 5])
        assert not got & removed
        found.append(len(expected & got) / len(expected))
    return float(np.mean(found))


def test_finds_the_best_while_it_grows_in_parts(make: Callable[[], VectorIndex]) -> None:
    index, vectors = make(), unit_vectors(1500)
    for start in range(0, 1500, 100):
        index.add(np.arange(start, start + 100), vectors[start : start + 100])
    assert len(index) == 1500
    assert recall(index, vectors, set()) >= 0.99


def test_removed_vectors_are_never_found(make: Callable[[], VectorIndex]) -> None:
    index, vectors = make(), unit_vectors(800)
    index.add(np.arange(800), vectors)
    removed = np.arange(0, 800, 3)
    index.remove(removed)
    assert len(index) == 800 - len(removed)
    assert recall(index, vectors, set(removed.tolist())) >= 0.99


def test_asking_for_more_than_there_is_gives_all_there_is(make: Callable[[], VectorIndex]) -> None:
    index, vectors = make(), unit_vectors(9)
    assert index.search(vectors[0], 5).tolist() == []
    index.add(np.arange(9), vectors)
    index.remove(np.asarray([4]))
    assert set(index.search(vectors[0], 50).tolist()) == {0, 1, 2, 3, 5, 6, 7, 8}
    index.remove(np.asarray([0, 1, 2, 3, 5, 6, 7, 8]))
    assert index.search(vectors[0], 5).tolist() == []


def test_a_graph_comes_back_from_its_file(tmp_path: Path) -> None:
    graph, vectors = HnswIndex(DIMENSIONS), unit_vectors(600)
    graph.add(np.arange(600), vectors)
    graph.remove(np.arange(0, 100))
    graph.save(tmp_path / "graph")
    again = HnswIndex.load(tmp_path / "graph", DIMENSIONS, removed=100)
    assert len(again) == 500
    assert recall(again, vectors, set(range(100))) >= 0.99
    again.add(np.arange(600, 700), unit_vectors(100, seed=5))  # a loaded graph has no room left and makes some
    assert len(again) == 600


def test_saving_where_nothing_can_be_saved_is_an_error(tmp_path: Path) -> None:
    graph = HnswIndex(DIMENSIONS)
    graph.add(np.arange(3), unit_vectors(3))
    with pytest.raises(OSError, match="graph"):
        graph.save(tmp_path / "no such folder" / "graph")


def test_equal_vectors_have_equal_scores_wherever_they_stand() -> None:
    index, vectors = ExactIndex(DIMENSIONS), unit_vectors(257)
    vectors[[3, 100, 255]] = vectors[0]
    index.add(np.arange(257), vectors)
    scores = index.scores(unit_vectors(1, seed=4)[0], np.asarray([0, 3, 100, 255]))
    assert len(set(scores.tolist())) == 1
    # All that tie with the last hit come back, so that the caller can break the tie by id.
    assert {0, 3, 100, 255} <= set(index.search(vectors[0], 2).tolist())
