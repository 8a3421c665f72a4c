"""The recall that is told of a graph when it is published."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retrieval_service import snapshot
from retrieval_service.graph_recall import measured_recall
from retrieval_service.space_index import Geometry, SpaceIndex

# More than are compared exactly in any case.
_SIZE, _DIMENSIONS = 6000, 48


def _index(vectors: np.ndarray) -> SpaceIndex:
    index = SpaceIndex(Geometry(vectors.shape[1]))
    index.apply(1, np.arange(len(vectors), dtype=np.int64), vectors, np.empty(0, np.int64))
    index.add_graph()
    while index.graph_backlog:
        index.absorb(1024)
    return index


def _random(count: int = _SIZE) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(count, _DIMENSIONS)).astype(np.float32)


def test_a_good_graph_finds_nearly_all_neighbours_and_the_figure_is_the_same_each_time() -> None:
    index = _index(_random())
    found = measured_recall(index)
    assert found is not None
    assert found > 0.97
    assert measured_recall(index) == found


def test_a_graph_that_is_searched_too_narrowly_is_told() -> None:
    index = _index(_random())
    graph = index.state()[3]
    assert graph is not None
    graph._index.set_ef(11)  # hnswlib's default after a load: the fault this figure is to show
    found = measured_recall(index)
    assert found is not None
    assert found < 0.9


def test_items_that_tie_are_as_good_as_each_other() -> None:
    assert measured_recall(_index(np.repeat(_random(60), 50, axis=0))) == 1.0


def test_without_a_graph_or_without_neighbours_there_is_no_figure() -> None:
    plain = SpaceIndex(Geometry(4))
    plain.apply(1, np.arange(50, dtype=np.int64), _random(50)[:, :4], np.empty(0, np.int64))
    assert measured_recall(plain) is None
    assert measured_recall(_index(_random(10))) is None


def test_a_snapshot_remembers_it(tmp_path: Path) -> None:
    snapshot.write(_index(_random(100)), tmp_path / "1.semantic.1", "here", 0.875)
    found = snapshot.newest(tmp_path / "1.semantic.1")
    assert found is not None
    assert found.recall == 0.875
