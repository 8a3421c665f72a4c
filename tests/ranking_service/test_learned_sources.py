"""Sources that a bundle brings: who chose what, as a table, as factors, as communities, and live neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from ranking_service.bundles.bundle import BundleUnusable
from ranking_service.bundles.learned_files import COMMUNITIES_FILE, TABLE_FILE, learned_files, learned_sources
from ranking_service.candidate import Floats, Pool
from ranking_service.learned_sources.communities import Communities
from ranking_service.learned_sources.item_factors import ItemFactors
from ranking_service.learned_sources.item_table import ItemTable
from ranking_service.learned_sources.learned_sources import LearnedSources
from ranking_service.query import Query
from ranking_service.sources.collaborative import CollaborativeSource
from ranking_service.sources.community import CommunitySource
from ranking_service.sources.factors import FactorsSource
from ranking_service.sources.neighbours import NeighboursSource
from ranking_service.sources.source import Source
from ranking_service.taste import Anchor, Taste
from ranking_service.users.user_state import UserState
from ranking_service.vector_cache import KnownItem, TextVector
from zhiyin.common.v1.item_pb2 import Item

IDS = ("a", "b", "c", "d")
ROWS = {item_id: row for row, item_id in enumerate(IDS)}
# a speaks for b (.5) and c (.25), b for c (1), c for nothing, d for a (.125).
TABLE = ItemTable(
    IDS,
    ROWS,
    np.array([0, 2, 3, 3, 4]),
    np.array([1, 2, 2, 0], np.int32),
    np.array([0.5, 0.25, 1.0, 0.125], np.float32),
    0.5,
)
FACTORS = ItemFactors(IDS, ROWS, np.array([[1, 0], [1, 0.1], [0, 1], [-1, 0]], np.float32), 0.1, 10.0, 0.5)
GROUPS = Communities(
    np.array([[1, 0], [0, 1]], np.float32),
    np.array([0.5, 0.0], np.float32),
    "model",
    IDS,
    ROWS,
    np.array([0, 2, 4]),
    np.array([0, 1, 2, 3], np.int32),
    np.array([0.9, 0.3, 0.8, 0.4], np.float32),
    True,
)
ALL = LearnedSources(TABLE, FACTORS, GROUPS, 0.6)


class Alike:
    """Statistics in which neighbours of whoever liked `a` liked these."""

    def __init__(self, *found: tuple[str, float]) -> None:
        self.found, self.asked = found, dict[str, float]()

    def liked_by_neighbours(self, catalog, weighted_items, user_key, limit):
        self.asked = dict(weighted_items)
        return list(self.found)[:limit]


def taste_of(*latest_first: str, learned: LearnedSources = ALL, **more) -> Taste:
    likes = tuple(Anchor(item_id, 1.0, 4, 1e9) for item_id in latest_first)
    return Taste(Query("default", "u", now=1e9), UserState("u"), likes, learned=learned, **more)


def pool_of(*ids: str) -> Pool:
    vectors = np.zeros((len(ids), 2), np.float32)
    return Pool(list(ids), [Item(id=i) for i in ids], vectors, vectors.astype(np.float16), {}, {})


def known(**vectors: Sequence[float]) -> dict[str, KnownItem]:
    return {i: KnownItem(np.array(v, np.float32), "1/f", 1, "", True, float("inf")) for i, v in vectors.items()}


def evidence(source: Source, taste: Taste, *ids: str) -> Floats | None:
    return source.evidence(taste, source.plan(taste), pool_of(*ids))


def test_a_table_adds_up_what_the_latest_items_say() -> None:
    assert TABLE.scores(["b", "a"]).tolist() == pytest.approx([0, 0.25, 1.125, 0])
    assert TABLE.scores(["new", "a"]).tolist() == pytest.approx([0, 0.25, 0.125, 0])  # a place is a place
    assert TABLE.scores(["new"]) is None


def test_factors_fold_a_history_in_as_the_paper_says() -> None:
    y, c = FACTORS.factors.astype(np.float64), np.array([10.0, 1 + 9 * 0.5])  # decay: the older counts less
    chosen = y[[2, 0]]
    confidence = np.diag([c[1], 1.0, c[0], 1.0])
    user = np.linalg.solve(y.T @ confidence @ y + 0.1 * np.eye(2), chosen.T @ c)
    assert FACTORS.scores(["c", "a"]) == pytest.approx(y @ user, abs=1e-5)
    assert FACTORS.scores(["new"]) is None


def test_communities_are_those_nearest() -> None:
    near_first = GROUPS.scores(np.array([2.0, 0.1], np.float32))
    assert near_first[0] > near_first[1] > near_first[2]
    near_second = GROUPS.scores(np.array([0.0, 1.0], np.float32))
    assert near_second[2] > near_second[3] > near_second[0]
    assert GROUPS.scores(np.zeros(2, np.float32)) is None
    assert GROUPS.scores(np.ones(3, np.float32)) is None  # vectors of another model


@pytest.mark.parametrize("source", [CollaborativeSource(2), FactorsSource(2), CommunitySource(2)])
def test_the_best_are_proposed_and_what_the_user_is_done_with_is_not(source: Source) -> None:
    taste = taste_of("a", known_items=known(a=(1, 0)))
    best = [item_id for item_id, _ in source.plan(taste).proposals]
    assert best
    done = replace(taste, state=replace(taste.state, seen=frozenset(best[:1])))
    after = [item_id for item_id, _ in source.plan(done).proposals]
    assert best[0] not in after
    assert after[: len(best) - 1] == best[1:]


@pytest.mark.parametrize(
    "source", [CollaborativeSource(1), FactorsSource(1), CommunitySource(1), NeighboursSource(Alike(("b", 2.0)), 1)]
)
def test_items_nobody_knew_at_the_training_are_as_good_as_the_worst(source: Source) -> None:
    taste = taste_of("a", known_items=known(a=(1, 0)))
    values = evidence(source, taste, "new", "a", "b", "c", "d", "newer")
    assert values is not None
    assert np.isfinite(values).all()
    assert values[0] == values[-1] == values.min()
    assert values.max() > values.min()
    assert evidence(source, taste, "new", "newer") is None or len(set(evidence(source, taste, "new", "newer"))) == 1


@pytest.mark.parametrize("source", [CollaborativeSource(5), FactorsSource(5), CommunitySource(5)])
def test_without_a_bundle_or_a_history_they_are_silent(source: Source) -> None:
    for taste in (taste_of("a", learned=LearnedSources()), taste_of(), taste_of("new")):
        plan = source.plan(taste)
        assert not plan.proposals
        assert source.evidence(taste, plan, pool_of("a", "b")) is None


def test_neighbours_are_asked_only_where_a_bundle_says_so() -> None:
    statistics = Alike(("b", 4.0), ("c", 1.0))
    source = NeighboursSource(statistics, 5)
    assert source.plan(taste_of("a", learned=LearnedSources())) == source.plan(taste_of())
    assert not statistics.asked
    assert source.plan(taste_of("a", "d")).proposals == (("b", 1.0), ("c", 0.25))
    assert statistics.asked == pytest.approx({"a": 1.0, "d": 0.6})


def test_a_profile_alone_leads_to_a_community() -> None:
    text = TextVector(np.array([0.0, 1.0], np.float32), "model")
    plan = CommunitySource(3).plan(taste_of(profile_vector=text))
    assert plan.proposals[0] == ("c", 1.0)
    assert not CommunitySource(3).plan(taste_of(profile_vector=replace(text, fingerprint="other"))).proposals


def test_communities_that_are_of_no_use_beside_a_history_speak_for_texts_alone() -> None:
    text = TextVector(np.array([0.0, 1.0], np.float32), "model")
    only = ALL.only(())
    assert (only.table, only.factors, only.neighbours_decay) == (None, None, None)
    source = CommunitySource(3)
    assert not source.plan(taste_of("a", learned=only, known_items=known(a=(1, 0)), profile_vector=text)).proposals
    assert source.plan(taste_of(learned=only, profile_vector=text)).proposals


def test_what_the_followed_like_is_proposed_without_any_bundle() -> None:
    taste = taste_of("a", learned=LearnedSources(), followed=(("x", 2.0), ("y", 1.0)))
    source = CommunitySource(1)
    assert source.plan(taste).proposals == (("x", 1.0),)
    values = evidence(source, taste, "y", "z", "x")
    assert values is not None
    assert values[2] > values[0] > values[1] == 0
    hidden = replace(taste, state=replace(taste.state, seen=frozenset({"x"})))
    assert [item_id for item_id, _ in source.plan(hidden).proposals] == ["y"]


def test_followed_and_community_add_up() -> None:
    taste = taste_of("a", known_items=known(a=(1, 0)), followed=(("b", 5.0),))
    alone = evidence(CommunitySource(4), replace(taste, followed=()), *IDS)
    values = evidence(CommunitySource(4), taste, *IDS)
    assert alone is not None
    assert values is not None
    assert values.argmax() == 1
    assert alone.argmax() == 0
    assert values[[0, 2, 3]] == pytest.approx(alone[[0, 2, 3]])


def test_a_bundle_brings_back_what_was_written() -> None:
    again = learned_sources(learned_files(ALL))
    assert again.table.scores(["b", "a"]).tolist() == TABLE.scores(["b", "a"]).tolist()
    assert again.factors.scores(["c"]).tolist() == FACTORS.scores(["c"]).tolist()
    direction = np.array([1.0, 0.4], np.float32)
    assert again.communities.scores(direction).tolist() == GROUPS.scores(direction).tolist()
    assert (again.communities.of_likes, again.neighbours_decay) == (True, 0.6)
    assert learned_files(LearnedSources()) == {}
    assert learned_sources({}) == LearnedSources()


@pytest.mark.parametrize("name", [TABLE_FILE, COMMUNITIES_FILE])
def test_a_damaged_file_is_refused(name: str) -> None:
    files = learned_files(ALL)
    for content in (files[name][:-40], b"", b"PK\x03\x04 nonsense"):
        with pytest.raises(BundleUnusable):
            learned_sources({**files, name: content})
