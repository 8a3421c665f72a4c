"""SpaceIndex against brute force: filters, plans, replaced and deleted items, the tail beyond the graph, threads."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyroaring import BitMap

from retrieval_service import search_plan, snapshot
from retrieval_service.centering import transform
from retrieval_service.search_plan import Plan, choose
from retrieval_service.snapshot import SnapshotDamagedError
from retrieval_service.space_index import Geometry, IndexQuery, SpaceIndex

DIMENSIONS = 16
NOTHING = np.empty(0, dtype=np.int64)


def raw_vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Vectors in a narrow cone, as encoders give them."""
    rng = np.random.default_rng(seed)
    vectors = 3.0 * np.ones(DIMENSIONS) / 4 + rng.standard_normal((count, DIMENSIONS)) * 0.3
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def filled(count: int, *, graph: bool, absorbed: float = 1.0, seed: int = 0) -> tuple[SpaceIndex, NDArray[np.float32]]:
    """An index of items 0..count-1, and their transformed vectors."""
    raw = raw_vectors(count, seed)
    mean = raw.mean(axis=0)
    index = SpaceIndex(Geometry(DIMENSIONS, mean, 1))
    cut = int(count * absorbed)
    index.apply(1, np.arange(cut), raw[:cut], NOTHING)
    if graph:
        index.add_graph()
        while index.graph_backlog:
            index.absorb(500)
    index.apply(2, np.arange(cut, count), raw[cut:], NOTHING)
    return index, transform(raw, mean)


def brute(vectors: NDArray[np.float32], query: NDArray[np.float32], limit: int, allowed: set[int]) -> list[int]:
    scores = vectors.astype(np.float64) @ query.astype(np.float64)
    return sorted(allowed, key=lambda i: (-scores[i], i))[:limit]


@pytest.fixture
def small_exact_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets graphs of test size be used with filters."""
    monkeypatch.setattr(search_plan, "_EXACT_ROWS", 64)


@pytest.mark.parametrize("absorbed", [1.0, 0.8])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.2, 0.01])
@pytest.mark.usefixtures("small_exact_threshold")
def test_filtered_search_finds_what_brute_force_finds(share: float, absorbed: float) -> None:
    index, vectors = filled(3000, graph=True, absorbed=absorbed)
    rng = np.random.default_rng(1)
    allowed = {i for i in range(3000) if rng.random() < share}
    found, plans = [], set()
    for query in raw_vectors(30, seed=9):
        hits = index.search([IndexQuery(10, query, allowed=None if share == 1.0 else BitMap(allowed))])[0][0]
        plans.add(hits.plan)
        assert set(hits.numbers.tolist()) <= allowed
        expected = brute(vectors, transform(query[None], index.geometry.mean)[0], 10, allowed)
        found.append(len(set(expected) & set(hits.numbers.tolist())) / 10)
        assert (np.diff(hits.scores) <= 0).all()
    assert plans == {Plan.GRAPH if share == 1.0 else Plan.EXACT if share == 0.01 else Plan.GRAPH_OVERFETCH}
    assert np.mean(found) >= (1.0 if share == 0.01 else 0.97)


@pytest.mark.parametrize("graph", [False, True])
def test_exact_queries_equal_brute_force(graph: bool) -> None:
    index, vectors = filled(700, graph=graph)
    allowed = set(range(0, 700, 3))
    for query in raw_vectors(20, seed=3):
        hits = index.search([IndexQuery(15, query, allowed=BitMap(allowed), exact=True)])[0][0]
        transformed = transform(query[None], index.geometry.mean)[0]
        assert hits.plan is Plan.EXACT
        assert hits.numbers.tolist()[:15] == brute(vectors, transformed, 15, allowed)


@pytest.mark.usefixtures("small_exact_threshold")
def test_denied_items_and_examples_never_come_back() -> None:
    index, vectors = filled(2000, graph=True)
    query = IndexQuery(20, examples=[(5, 1.0), (6, 0.5), (7, -0.5), (99999, 1.0)], denied=[5, 6, 7])
    hits = index.search([query])[0][0]
    mixed = vectors[5] + 0.5 * vectors[6] - 0.5 * vectors[7]
    expected = brute(vectors, mixed / np.linalg.norm(mixed), 20, set(range(2000)) - {5, 6, 7})
    assert not {5, 6, 7} & set(hits.numbers.tolist())
    assert len(set(expected) & set(hits.numbers.tolist())) >= 19
    assert index.search([IndexQuery(5, examples=[(99999, 1.0)])])[0][0].plan is Plan.EMPTY


def test_a_replaced_vector_counts_once_and_only_in_its_new_form() -> None:
    index, _ = filled(200, graph=True)
    new = raw_vectors(1, seed=77)
    index.apply(3, np.asarray([42]), new, np.asarray([43]))
    hits = index.search([IndexQuery(200, new[0])])[0][0].numbers.tolist()
    assert hits[0] == 42
    assert hits.count(42) == 1
    assert 43 not in hits
    assert (len(index), index.tombstones) == (199, 2)


def test_applying_a_write_again_changes_nothing() -> None:
    index, _ = filled(50, graph=False)
    before = len(index), index.tombstones
    index.apply(2, np.arange(50), raw_vectors(50, seed=8), NOTHING)
    assert (len(index), index.tombstones) == before


@settings(max_examples=30, deadline=None)
@given(
    writes=st.lists(
        st.tuples(st.lists(st.integers(0, 30), max_size=6, unique=True), st.lists(st.integers(0, 30), max_size=4)),
        max_size=12,
    ),
    data=st.data(),
)
def test_any_history_leaves_the_same_items_as_a_dict_would(
    writes: list[tuple[list[int], list[int]]], data: st.DataObject
) -> None:
    mean = raw_vectors(20).mean(axis=0)
    index = SpaceIndex(Geometry(DIMENSIONS, mean, 1))
    if data.draw(st.booleans()):
        index.add_graph()
    model: dict[int, NDArray[np.float32]] = {}
    for sequence, (numbers, deleted) in enumerate(writes, start=1):
        gone = [n for n in dict.fromkeys(deleted) if n not in numbers]
        vectors = raw_vectors(len(numbers), seed=sequence)
        index.apply(sequence, np.asarray(numbers, np.int64), vectors, np.asarray(gone, np.int64))
        model.update(zip(numbers, vectors, strict=True))
        for number in gone:
            model.pop(number, None)
        index.absorb(data.draw(st.integers(0, 5)))
    query = raw_vectors(1, seed=1234)[0]
    hits = index.search([IndexQuery(100, query)])[0][0]
    assert sorted(hits.numbers.tolist()) == sorted(model)
    if model:
        expected = transform(np.stack([model[n] for n in hits.numbers.tolist()]), mean)
        np.testing.assert_array_equal(index.vectors(hits.numbers), expected)


@given(
    live=st.integers(0, 1_000_000),
    share=st.floats(0, 1),
    denied=st.integers(0, 64),
    limit=st.integers(1, 1000),
    has_graph=st.booleans(),
    exact=st.booleans(),
)
def test_the_plan_never_asks_a_graph_for_too_few_or_too_many(
    live: int, share: float, denied: int, limit: int, has_graph: bool, exact: bool
) -> None:
    allowed = int(live * share)
    choice = choose(live=live, allowed=allowed, denied=denied, limit=limit, has_graph=has_graph, exact=exact)
    if choice.plan in (Plan.GRAPH, Plan.GRAPH_OVERFETCH):
        assert has_graph
        assert not exact
        assert limit <= choice.fetch <= search_plan.max_fetch(live)
    else:
        assert choice.plan is (Plan.EMPTY if not live or not allowed else Plan.EXACT)


def test_searches_beside_writes_and_absorption_stay_whole() -> None:
    index, _ = filled(1000, graph=True)
    stop, faults = threading.Event(), []

    def search() -> None:
        query = raw_vectors(1, seed=5)[0]
        while not stop.is_set():
            try:
                hits, _ = index.search([IndexQuery(10, query)])
                assert len(hits[0].numbers) == 10
                assert len(set(hits[0].numbers.tolist())) == 10
            except Exception as error:
                faults.append(error)
                return

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for sequence in range(3, 60):
        numbers = np.arange(sequence * 20, sequence * 20 + 40)
        index.apply(sequence, numbers, raw_vectors(40, seed=sequence), np.asarray([sequence]))
        index.absorb(16)
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults


# ---- snapshots


@pytest.mark.parametrize("graph", [False, True])
def test_a_snapshot_gives_the_same_answers(tmp_path: Path, graph: bool) -> None:
    index, _ = filled(400, graph=graph)
    index.apply(3, np.asarray([5]), raw_vectors(1, seed=3), np.asarray([6, 7]))
    while index.graph_backlog:
        index.absorb(100)
    info = snapshot.write(index, tmp_path)
    assert snapshot.newest(tmp_path) == info
    again = snapshot.load(info.path, dimensions=DIMENSIONS, normalize=True)
    assert (again.sequence, len(again), again.tombstones) == (3, len(index), index.tombstones)
    assert again.has_graph is graph
    for query in raw_vectors(10, seed=6):
        first, second = (i.search([IndexQuery(10, query)])[0][0] for i in (index, again))
        assert first.numbers.tolist() == second.numbers.tolist()
    again.apply(4, np.asarray([1000]), raw_vectors(1, seed=8), np.asarray([8]))
    assert again.search([IndexQuery(1, raw_vectors(1, seed=8)[0])])[0][0].numbers.tolist() == [1000]


@pytest.mark.parametrize("name", ["graph.hnsw", "matrix.npy", "numbers.npy", "mean.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_no_damage_goes_unnoticed(tmp_path: Path, name: str, damage: str) -> None:
    index, _ = filled(100, graph=True)
    file = snapshot.write(index, tmp_path).path / name
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        content[len(content) // 2] ^= 0x04
        file.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    with pytest.raises(SnapshotDamagedError):
        load_newest(tmp_path)


def test_a_number_changed_in_the_manifest_is_noticed(tmp_path: Path) -> None:
    index, _ = filled(100, graph=True)
    file = snapshot.write(index, tmp_path).path / "manifest.json"
    file.write_text(file.read_text().replace('"sequence": 2', '"sequence": 9'))
    with pytest.raises(SnapshotDamagedError, match="checksum"):
        load_newest(tmp_path)


def load_newest(folder: Path) -> SpaceIndex:
    info = snapshot.newest(folder)
    assert info is not None
    return snapshot.load(info.path, dimensions=DIMENSIONS, normalize=True)


def test_a_snapshot_of_other_vectors_is_not_taken(tmp_path: Path) -> None:
    info = snapshot.write(filled(50, graph=True)[0], tmp_path)
    with pytest.raises(SnapshotDamagedError, match="16 dimensions"):
        snapshot.load(info.path, dimensions=32, normalize=True)
    with pytest.raises(SnapshotDamagedError, match="inner_product"):
        snapshot.load(info.path, dimensions=DIMENSIONS, normalize=False)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, _ = filled(50, graph=True)

    def full(_path: Path) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(index.state()[3], "save", full)
    with pytest.raises(OSError, match="full"):
        snapshot.write(index, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_exact_threshold")
def test_a_graph_over_inner_products_finds_long_vectors_too() -> None:
    """Lengths count, and differ as those of trained item vectors do."""
    rng = np.random.default_rng(5)
    vectors = (rng.standard_normal((3000, DIMENSIONS)) * np.exp(0.5 * rng.standard_normal((3000, 1)))).astype(
        np.float32
    )
    index = SpaceIndex(Geometry(DIMENSIONS, normalize=False))
    index.apply(1, np.arange(3000), vectors, NOTHING)
    index.add_graph()
    while index.graph_backlog:
        index.absorb(500)
    found = 0
    for query in rng.standard_normal((40, DIMENSIONS)).astype(np.float32):
        (hits,), _ = index.search([IndexQuery(limit=10, vector=query)])
        assert hits.plan is Plan.GRAPH
        np.testing.assert_allclose(hits.scores, vectors[hits.numbers] @ query, rtol=1e-5)
        found += len(set(hits.numbers.tolist()) & set(brute(vectors, query, 10, set(range(3000)))))
    assert found / 400 >= 0.97


def test_scores_of_any_items_are_those_of_the_search() -> None:
    index, _ = filled(300, graph=False)
    queries = [IndexQuery(limit=300, vector=raw_vectors(1, seed=9)[0]), IndexQuery(limit=5, examples=[(7, 1.0)])]
    (hits, _), _ = index.search(queries)
    scores = index.scores([*queries, IndexQuery(limit=1)], np.append(hits.numbers, [5000, -1]))
    np.testing.assert_array_equal(scores[0, :300], hits.scores)
    assert np.nanargmax(scores[1]) == hits.numbers.tolist().index(7)
    assert np.isnan(scores[:2, 300:]).all()
    assert np.isnan(scores[2]).all()
