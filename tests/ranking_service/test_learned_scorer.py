"""The learned scorer reorders the best of its weighted sum and loses nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.query import Query
from ranking_service.scorers.features import NAMES
from ranking_service.scorers.learned import LearnedScorer, reranked
from ranking_service.scorers.scorer import BuiltinScorer, Opinions
from ranking_service.scorers.source_weights import source_weights
from ranking_service.scorers.tree_ranker import TreeRanker
from ranking_service.taste import Anchor, Taste
from ranking_service.users.user_state import UserState
from ranking_service.vector_cache import TextVector
from zhiyin.common.v1.item_pb2 import Item

LIKED = (Anchor("liked", 1.0, 4, 1e9),)
WEIGHTS = {SourceKind.HISTORY: 1.0, SourceKind.POPULAR: 0.5}


class Trees:
    """Says of each row what the test wants; keeps what it was shown."""

    def __init__(self, scores: Floats | None = None) -> None:
        self.scores, self.rows = scores, np.empty((0, len(NAMES)), np.float32)

    def score(self, rows: Floats) -> Floats:
        self.rows = rows
        return np.random.default_rng(len(rows)).random(len(rows)) if self.scores is None else self.scores[: len(rows)]


def pool_of(n: int) -> Pool:
    vectors = np.zeros((n, 2), np.float32)
    ids = [f"i{number}" for number in range(n)]
    return Pool(ids, [Item(id=i) for i in ids], vectors, vectors.astype(np.float16), {}, {})


def opinions_of(history: list[float], popular: list[float] | None = None) -> Opinions:
    evidence = {SourceKind.HISTORY: np.array(history, np.float32)}
    if popular is not None:
        evidence[SourceKind.POPULAR] = np.array(popular, np.float32)
    return Opinions(evidence, dict.fromkeys(evidence, 0.01), np.zeros(len(history), np.float32))


def taste_of(likes: tuple[Anchor, ...] = LIKED, text: str = "") -> Taste:
    vector = TextVector(np.ones(2, np.float32), "f") if text else None
    return Taste(Query("default", "u", text=text, now=1e9), UserState("u"), likes, query_vector=vector)


def scorer(trees: Trees | None, depth: int) -> LearnedScorer:
    return LearnedScorer(WEIGHTS, cast(TreeRanker, trees), depth)


@given(
    history=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60),
    wanted=st.lists(st.floats(-5, 5, width=32), min_size=60, max_size=60),
    depth=st.integers(1, 80),
)
@settings(max_examples=150, deadline=None)
def test_every_candidate_is_kept_and_only_the_best_are_reordered(
    history: list[float], wanted: list[float], depth: int
) -> None:
    pool, said = pool_of(len(history)), opinions_of(history)
    blend = scorer(None, depth).score(taste_of(), pool, said).total
    trees = Trees(np.array(wanted, np.float32))
    total = scorer(trees, depth).score(taste_of(), pool, said).total
    assert total.shape == blend.shape
    assert np.array_equal(np.sort(total), np.sort(blend))  # the same values, handed out anew
    best = np.argsort(-blend, kind="stable")[:depth]
    rest = np.setdiff1d(np.arange(len(blend)), best)
    assert np.array_equal(total[rest], blend[rest])
    assert len(trees.rows) == len(best)
    if len(rest):
        assert total[best].min() >= total[rest].max()
    # Among the best the ranker's order holds: who is liked more never has the lower score.
    by_trees = best[np.argsort(-trees.scores[: len(best)], kind="stable")]  # type: ignore[index]
    assert (np.diff(total[by_trees]) <= 0).all()


@given(st.permutations(list(range(8))))
def test_reranking_gives_the_places_of_the_blend_to_the_order_of_the_ranker(order: list[int]) -> None:
    blend = np.arange(12, dtype=np.float32)
    rows = np.arange(4, 12)
    total = reranked(blend, rows, np.array(order, np.float32))
    assert total[4:].tolist() == [float(4 + place) for place in order]
    assert total[:4].tolist() == [0, 1, 2, 3]


def test_the_ranker_reads_the_blend_that_serves() -> None:
    trees = Trees()
    said = opinions_of([3.0, 1.0, 2.0], [0.0, 5.0, 1.0])
    blend = scorer(None, 3).score(taste_of(), pool_of(3), said).total
    scorer(trees, 3).score(taste_of(), pool_of(3), said)
    best = np.argsort(-blend, kind="stable")
    assert trees.rows[:, NAMES.index("blend")].tolist() == blend[best].tolist()
    assert trees.rows[:, NAMES.index("history.raw")].tolist() == np.array([3.0, 1.0, 2.0])[best].tolist()


@pytest.mark.parametrize("taste", [taste_of(likes=()), taste_of(text="beach")], ids=["nothing known", "a text"])
def test_without_a_history_and_with_a_text_the_weights_of_the_house_decide(taste: Taste) -> None:
    said, trees = opinions_of([3.0, 1.0, 2.0], [0.0, 5.0, 1.0]), Trees()
    house = BuiltinScorer(source_weights).score(taste, pool_of(3), said)
    mine = scorer(trees, 3).score(taste, pool_of(3), said)
    assert np.array_equal(mine.total, house.total)
    assert not len(trees.rows)


def test_a_bundle_that_found_the_house_best_serves_as_the_house() -> None:
    said = opinions_of([3.0, 1.0, 2.0], [0.0, 5.0, 1.0])
    house = BuiltinScorer(source_weights).score(taste_of(), pool_of(3), said)
    assert np.array_equal(LearnedScorer(None, None, 100).score(taste_of(), pool_of(3), said).total, house.total)


def test_a_profile_counts_beside_learned_weights_as_beside_those_of_the_house() -> None:
    """No training hears what people say in words: that is no reason to stop listening."""
    said = opinions_of([3.0, 1.0, 2.0], [0.0, 5.0, 1.0])
    profile = np.array([0.0, 1.0, 5.0], np.float32)
    heard = Opinions(
        {**said.evidence, SourceKind.PROFILE: profile}, {**said.resolutions, SourceKind.PROFILE: 0.01}, said.nudge
    )
    house, mine = (
        which.score(taste_of(), pool_of(3), heard) for which in (BuiltinScorer(source_weights), scorer(None, 3))
    )
    weights = source_weights(taste_of())
    of_events = sum(weight for kind, weight in weights.items() if kind not in (SourceKind.PROFILE, SourceKind.QUERY))
    share_there = house.by_source[SourceKind.PROFILE] / of_events
    assert np.allclose(mine.by_source[SourceKind.PROFILE] / sum(WEIGHTS.values()), share_there)
    assert np.abs(mine.by_source[SourceKind.PROFILE]).max() > 0.5
    learned = LearnedScorer({**WEIGHTS, SourceKind.PROFILE: 0.25}, None, 3).score(taste_of(), pool_of(3), heard)
    assert (
        learned.by_source[SourceKind.PROFILE].max() < mine.by_source[SourceKind.PROFILE].max()
    )  # what was learned holds


def test_what_the_sources_said_stays_readable_under_a_ranker() -> None:
    said = opinions_of([3.0, 1.0, 2.0], [0.0, 5.0, 1.0])
    with_trees, without = (scorer(trees, 3).score(taste_of(), pool_of(3), said) for trees in (Trees(), None))
    for kind in (SourceKind.HISTORY, SourceKind.POPULAR):
        assert np.array_equal(with_trees.by_source[kind], without.by_source[kind])


def test_no_candidates_are_no_trouble() -> None:
    assert scorer(Trees(), 5).score(taste_of(), pool_of(0), opinions_of([])).total.shape == (0,)


def test_a_text_that_is_no_model_is_refused() -> None:
    with pytest.raises(ValueError):
        TreeRanker("tree\nthis is no model")
    with pytest.raises(ValueError):
        TreeRanker("")


def test_what_nobody_acted_on_gets_something_and_less_with_every_user() -> None:
    pool, said = (
        pool_of(4),
        replace(opinions_of([1, 1, 1, 1]), newness=lambda: np.array([1, 1 / 2, 1 / 3, 1 / 100], np.float32)),
    )
    plain = LearnedScorer(WEIGHTS, None, 100).score(taste_of(), pool, said)
    raised = LearnedScorer(WEIGHTS, None, 100, new_items=0.6).score(taste_of(), pool, said)
    assert raised.total - plain.total == pytest.approx([0.6, 0.3, 0.2, 0.006], abs=1e-5)
    parts = sum(raised.by_source.values()) + raised.nudge
    assert raised.total == pytest.approx(parts, abs=1e-5)


def test_the_ranker_leaves_new_items_where_they_are() -> None:
    pool = pool_of(6)
    said = replace(opinions_of([6, 5, 4, 3, 2, 1]), newness=lambda: np.array([0.1, 1, 0.1, 0.1, 1, 0.1], np.float32))
    trees = Trees(np.array([1, 2, 3, 4], np.float32))
    total = LearnedScorer(WEIGHTS, cast(TreeRanker, trees), 6, new_items=1e-4).score(taste_of(), pool, said).total
    assert np.argsort(-total).tolist() == [5, 1, 3, 2, 4, 0]  # the four others turned round, the new ones in place
    assert len(trees.rows) == 4


@pytest.mark.parametrize("taste", [taste_of(text="lamp"), taste_of(likes=())])
def test_new_items_get_nothing_where_the_weights_of_the_house_serve(taste: Taste) -> None:
    pool, said = pool_of(2), replace(opinions_of([1, 2]), newness=lambda: np.ones(2, np.float32))
    raised = LearnedScorer(WEIGHTS, None, 100, new_items=5.0).score(taste, pool, said)
    assert np.array_equal(raised.total, LearnedScorer(WEIGHTS, None, 100).score(taste, pool, said).total)
