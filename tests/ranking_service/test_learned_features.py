"""What a learned ranker reads: its shape, and what is unknown stays unknown."""

from __future__ import annotations

import numpy as np
import pytest

from ranking_service.candidate import Floats, Pool, Provenance, SourceKind
from ranking_service.query import Query
from ranking_service.scorers.features import NAMES, SOURCES, features
from ranking_service.scorers.scorer import Opinions
from ranking_service.scorers.weighted_sum import z_scores
from ranking_service.taste import Anchor, Taste
from ranking_service.users.user_state import UserState
from ranking_service.vector_cache import KnownItem
from zhiyin.common.v1.item_pb2 import Item

NOW, DAY = 1_750_000_000.0, 86_400.0


def pool_of(n: int, provenance: dict[SourceKind, Provenance] | None = None, dimensions: int = 4) -> Pool:
    random = np.random.default_rng(n)
    vectors = random.standard_normal((n, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) if n else 1
    items = []
    for number in range(n):
        items.append(Item(id=f"i{number}", categories=["a"] * (number % 3)))
        if number % 2:
            items[-1].created_at.FromSeconds(int(NOW - number * DAY))
    return Pool([item.id for item in items], items, vectors, vectors.astype(np.float16), {}, provenance or {})


def opinions_of(n: int, **evidence: Floats) -> Opinions:
    kinds = {SourceKind[name.upper()]: values for name, values in evidence.items()}
    return Opinions(kinds, dict.fromkeys(kinds, 0.01), np.zeros(n, np.float32))


def column(table: Floats, name: str) -> Floats:
    return table[:, NAMES.index(name)]


def taste_of(*likes: Anchor, **fields: object) -> Taste:
    return Taste(Query("default", "u", now=NOW), UserState("u"), likes, **fields)  # type: ignore[arg-type]


def known_item(vector: Floats) -> KnownItem:
    return KnownItem(vector, "1/f", 1, "", True, float("inf"))


def test_names_are_unique_and_every_source_has_its_three() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for kind in SOURCES:
        assert {f"{kind.name.lower()}.{part}" for part in ("z", "raw", "rank")} <= set(NAMES)
    assert SourceKind.EXPLORATION not in SOURCES  # what is drawn by lot says nothing about what is wanted


@pytest.mark.parametrize("n", [0, 1, 7])
def test_one_row_a_candidate_and_one_column_a_name(n: int) -> None:
    table = features(taste_of(), pool_of(n), opinions_of(n, popular=np.arange(n, dtype=np.float32)), np.zeros(n))
    assert (table.shape, table.dtype) == ((n, len(NAMES)), np.float32)
    assert not np.isinf(table).any()


def test_a_source_without_an_opinion_is_unknown_and_not_zero() -> None:
    said = Provenance(np.array([2, 0, 1], np.int32), np.array([0.5, 0.0, 0.9]))
    raw = np.array([3.0, -1.0, 7.0], np.float32)
    pool = pool_of(3, {SourceKind.HISTORY: said, SourceKind.FRESH: Provenance(np.zeros(3, np.int32), np.zeros(3))})
    table = features(taste_of(), pool, opinions_of(3, history=raw), np.array([1.0, 2.0, 3.0], np.float32))
    assert column(table, "history.raw").tolist() == raw.tolist()
    assert np.allclose(column(table, "history.z"), z_scores(raw, 0.01))
    ranks = column(table, "history.rank")
    assert np.array_equal(ranks, np.log(np.array([2, np.nan, 1], np.float32)), equal_nan=True)
    assert column(table, "proposed_by").tolist() == [1, 0, 1]
    assert column(table, "blend").tolist() == [1, 2, 3]
    for name in ("fresh.z", "fresh.raw", "fresh.rank", "sequence.z", "transition.raw"):
        assert np.isnan(column(table, name)).all(), name


def test_age_is_of_the_moment_of_the_list_and_unknown_without_a_time() -> None:
    pool = pool_of(4)
    ages = column(features(taste_of(), pool, opinions_of(4), np.zeros(4)), "age_days")
    assert np.isnan(ages[[0, 2]]).all()
    assert np.allclose(ages[[1, 3]], np.log1p([1, 3]))
    pool = pool_of(4)
    pool.items[1].created_at.FromSeconds(int(NOW + 5 * DAY))  # a wrong clock: not younger than new
    assert column(features(taste_of(), pool, opinions_of(4), np.zeros(4)), "age_days")[1] == 0


def test_likeness_is_to_the_latest_and_to_the_best_of_three() -> None:
    pool = pool_of(5)
    anchors = [Anchor(f"h{number}", 1.0, 4, NOW - 3_600 * (number + 1)) for number in range(4)]
    known = {anchor.item_id: known_item(pool.vectors[number]) for number, anchor in enumerate(anchors)}
    table = features(taste_of(*anchors, known_items=known), pool, opinions_of(5), np.zeros(5))
    products = pool.vectors @ pool.vectors.T
    assert np.allclose(column(table, "like_latest"), products[:, 0], atol=1e-6)
    assert np.allclose(column(table, "like_recent"), products[:, :3].max(axis=1), atol=1e-6)
    assert column(table, "user.likes").tolist() == pytest.approx([np.log1p(4)] * 5)
    assert column(table, "user.since_latest_h").tolist() == pytest.approx([np.log1p(1.0)] * 5)


def test_likeness_is_unknown_without_comparable_vectors_and_the_time_since_without_likes() -> None:
    pool, anchor = pool_of(3), Anchor("h", 1.0, 4, NOW)
    foreign = {"h": known_item(np.ones(9, np.float32))}
    for taste in (taste_of(), taste_of(anchor), taste_of(anchor, known_items=foreign)):
        table = features(taste, pool, opinions_of(3), np.zeros(3))
        assert np.isnan(column(table, "like_latest")).all()
        assert np.isnan(column(table, "like_recent")).all()
    assert np.isnan(column(features(taste_of(), pool, opinions_of(3), np.zeros(3)), "user.since_latest_h")).all()
