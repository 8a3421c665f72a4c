"""What sources learn, on records in which it is known who is like whom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ranking_service.candidate import SourceKind
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2
from zhiyin_offline.evaluation.baselines.als import AlsScorer
from zhiyin_offline.evaluation.baselines.ease import EaseScorer
from zhiyin_offline.evaluation.dataset import Dataset, EventRows
from zhiyin_offline.evaluation.interactions import recent_items
from zhiyin_offline.evaluation.memory_catalog import semantic_space
from zhiyin_offline.evaluation.protocols import leave_one_out
from zhiyin_offline.training.learned_sources import item_table_step
from zhiyin_offline.training.learned_sources.communities_step import CommunitiesRecipe, build_communities, find_groups
from zhiyin_offline.training.learned_sources.factors_step import FactorsRecipe, build_factors
from zhiyin_offline.training.learned_sources.full_ranking import FullRanking
from zhiyin_offline.training.learned_sources.item_table_step import TableRecipe, build_table, search_table
from zhiyin_offline.training.learned_sources.steps import OPTIONAL, build_sources, search_sources

TOPICS, PER_TOPIC, USERS = 4, 15, 120


@pytest.fixture(scope="module")
def record() -> Dataset:
    """Everybody acts on the items of one topic, with a slip now and then. The last item nobody touched."""
    random = np.random.default_rng(0)
    items = tuple(Item(id=f"item {number}") for number in range(TOPICS * PER_TOPIC + 1))
    rows = EventRows({item.id: number for number, item in enumerate(items)})
    for user in range(USERS):
        own = PER_TOPIC * (user % TOPICS) + random.permutation(PER_TOPIC)[:7]
        for place, number in enumerate([*own, int(random.integers(TOPICS * PER_TOPIC))]):
            rows.add(user, items[number].id, pb2.EVENT_TYPE_PURCHASE, None, 1e9 + 1000 * place + user)
    return Dataset(items, tuple(f"user {user}" for user in range(USERS)), {}, rows.events())


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Items of a topic lie together."""
    random = np.random.default_rng(1)
    centres = np.repeat(np.eye(TOPICS, 16), PER_TOPIC, axis=0)
    there = centres + 0.1 * random.standard_normal(centres.shape)
    return np.vstack([there, random.standard_normal((1, 16))]).astype(np.float32)


def everything(record: Dataset) -> np.ndarray:
    return np.arange(len(record.events))


def topic_of(item_id: str) -> int:
    return int(item_id.split()[1]) // PER_TOPIC


def test_the_table_is_ease_as_the_baseline_has_it(record: Dataset) -> None:
    split = leave_one_out(record)
    baseline = EaseScorer(30.0, 0.6)
    baseline.fit(record, split)
    table = build_table(record, split.training, TableRecipe(30.0, 0.6))
    for case in split.cases[:20]:
        history = [record.item_ids[int(item)] for item in recent_items(record, case)]
        (expected,) = baseline.scores([case])
        found = table.scores(history)
        assert found is not None
        by_id = dict(zip(table.item_ids, found, strict=True))
        # Only what speaks for an item is kept: the baseline's values against items are left out.
        best = np.argsort(-expected)[:3]
        assert {record.item_ids[int(i)] for i in best} <= set(sorted(by_id, key=lambda i: -by_id[i])[:8])


def test_large_catalogues_get_cosines(record: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_table_step, "MOST_ITEMS", 10)
    split = leave_one_out(record)
    judge = FullRanking(record, split.cases, 0)
    recipe = search_table(record, split.training, judge)
    assert recipe is not None
    assert recipe.regularization is None
    table = build_table(record, split.training, recipe)
    scores = table.scores(["item 0", "item 1"])
    assert scores is not None
    assert [topic_of(table.item_ids[int(row)]) for row in np.argsort(-scores)[:5]] == [0] * 5


def test_factors_are_those_of_the_baseline(record: Dataset) -> None:
    split = leave_one_out(record)
    baseline = AlsScorer(0, iterations=10)
    baseline.fit(record, split)
    model = build_factors(record, split.training, FactorsRecipe(10.0, 1.0), 0)
    case = split.cases[0]
    found = model.scores([record.item_ids[int(item)] for item in recent_items(record, case)])
    assert found is not None
    (expected,) = baseline.scores([case])
    numbers = [record.item_numbers[item_id] for item_id in model.item_ids]
    assert np.corrcoef(found, expected[numbers])[0, 1] > 0.97


def test_groups_are_found_and_like_their_own(record: Dataset, vectors: np.ndarray) -> None:
    semantic = semantic_space(vectors, "model")
    groups = build_communities(record, everything(record), semantic, CommunitiesRecipe(TOPICS), 0)
    assert groups is not None
    for topic in range(TOPICS):
        scores = groups.scores(semantic.rows[PER_TOPIC * topic])
        assert scores is not None
        assert [topic_of(groups.item_ids[int(row)]) for row in np.argsort(-scores)[:5]] == [topic] * 5
    assert build_communities(record, everything(record), semantic, CommunitiesRecipe(64), 0) is None  # too few users


def test_equal_positions_make_no_trouble() -> None:
    same = np.tile(np.eye(1, 8, dtype=np.float32), (30, 1))
    assert np.allclose(find_groups(same, 4, 0), same[:4])


def test_sources_beat_chance_by_themselves_and_are_the_same_again(record: Dataset, vectors: np.ndarray) -> None:
    split, semantic = leave_one_out(record, "validation"), semantic_space(vectors, "model")
    recipes = search_sources(record, split.training, semantic, split.cases, 0)
    assert recipes == search_sources(record, split.training, semantic, split.cases, 0)
    chance = 10 / (TOPICS * PER_TOPIC) * 0.5
    for found in (recipes.table, recipes.factors, recipes.communities):
        assert found is not None
        assert found.ndcg > 2 * chance
    assert set(recipes.evidence()) == {"table", "factors", "communities"}
    learned = build_sources(recipes, (SourceKind.COLLABORATIVE,), record, split.training, semantic, 0)
    assert learned.table is not None
    assert learned.communities is not None
    assert not learned.communities.of_likes  # they stay for those of whom there is a text alone
    assert (learned.factors, learned.neighbours_decay) == (None, None)
    assert "item 60" not in learned.table.rows  # nobody touched it


def test_users_without_a_history_are_asked_too(record: Dataset, vectors: np.ndarray) -> None:
    split, semantic = leave_one_out(record), semantic_space(vectors, "model")
    cases = [replace(case, history=case.history[: 3 * (place % 2)]) for place, case in enumerate(split.cases)]
    recipes = search_sources(record, split.training, semantic, cases, 0)
    assert recipes.table is not None
    assert recipes.factors is not None
    assert recipes.communities is not None


def test_a_record_with_next_to_nothing_gives_no_sources(record: Dataset, vectors: np.ndarray) -> None:
    rows = np.array([0])
    recipes = search_sources(record, rows, semantic_space(vectors, "model"), [], 0)
    learned = build_sources(recipes, OPTIONAL, record, rows, semantic_space(vectors, "model"), 0)
    assert (learned.table, learned.factors, learned.communities) == (None, None, None)
    without_words = semantic_space(np.zeros_like(vectors), "model")
    assert search_sources(record, everything(record), without_words, [], 0).communities is None
