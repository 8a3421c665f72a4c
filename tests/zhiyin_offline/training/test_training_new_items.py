"""How a training finds out what new items should get."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from ranking_service.candidate import SourceKind
from ranking_service.scorers.learned import LearnedScorer
from tests.zhiyin_offline.evaluation.recorded import generated
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.in_process import RecordedService
from zhiyin_offline.evaluation.memory_catalog import SEMANTIC, MemoryCatalog, semantic_space
from zhiyin_offline.evaluation.protocols import leave_one_out
from zhiyin_offline.training.new_items_step import NewItemsChoice, as_if_new, as_new, choose_new_items
from zhiyin_offline.training.sequence_step import SequencePart

WEIGHTS = {SourceKind.HISTORY: 0.5, SourceKind.TRANSITION: 1.5}


def scorer_with(new_items: float) -> LearnedScorer:
    return LearnedScorer(WEIGHTS, None, 100, new_items)


@pytest.fixture(scope="module")
def world() -> tuple[Dataset, np.ndarray]:
    return generated(users=700, items=300, topics=10)


def test_hidden_items_occur_in_nothing_that_is_learned_from_or_asked_with(world: tuple[Dataset, np.ndarray]) -> None:
    dataset, _ = world
    whole = leave_one_out(dataset)
    split, hidden = as_if_new(dataset, whole.training, whole.cases, 0)
    assert len(hidden) == round(0.1 * len(np.unique(dataset.events.item)))
    assert not np.isin(dataset.events.item[split.training], hidden).any()
    assert not any(np.isin(dataset.events.item[case.history], hidden).any() for case in split.cases)
    targets = [case.target for case in split.cases]
    wanted = {(case.user, case.target) for case in whole.cases if case.target in set(hidden.tolist())}
    assert wanted == {(case.user, case.target) for case in split.cases if case.target in set(hidden.tolist())}
    assert len(targets) == len(whole.cases)


def choice_for(dataset: Dataset, vectors: np.ndarray) -> NewItemsChoice:
    whole = leave_one_out(dataset)
    split, hidden = as_if_new(dataset, whole.training, whole.cases, 0)
    service = RecordedService(dataset, MemoryCatalog(dataset.items, {SEMANTIC: semantic_space(vectors, "test")}))
    service.statistics.fold(split.training)
    return choose_new_items(service, partial(scorer_with), dataset, split.cases, hidden)


def test_new_items_are_found_at_next_to_no_cost_of_others(world: tuple[Dataset, np.ndarray]) -> None:
    choice = choice_for(*world)
    nothing, chosen = choice.evidence["0"], choice.evidence[f"{choice.amount:g}"]
    assert chosen["known"] >= 0.985 * nothing["known"]
    assert chosen["new"] >= nothing["new"]
    amounts = [float(amount) for amount in choice.evidence]
    new = [of["new"] for of in choice.evidence.values()]
    assert amounts == sorted(amounts)
    assert new[-1] > new[0]  # the more is added, the more are found
    assert choice == choice_for(*world)


def test_too_few_new_targets_say_nothing() -> None:
    assert choice_for(*generated(users=100, items=300)) == NewItemsChoice(0.0, {})


def test_hidden_items_have_the_vectors_of_new_ones() -> None:
    random = np.random.default_rng(0)
    semantic = semantic_space(random.standard_normal((6, 4)).astype(np.float32), "test")
    own = replace(semantic, rows=random.standard_normal((6, 3)).astype(np.float32), normalize=False)
    projection = random.standard_normal((4, 3)).astype(np.float32)
    part = SequencePart({}, own, (), own.rows, projection)
    rows = as_new(part, semantic, np.array([1, 4], np.int32)).rows
    assert rows[[1, 4]] == pytest.approx(semantic.rows[[1, 4]] @ projection)
    assert np.array_equal(rows[[0, 2, 3, 5]], own.rows[[0, 2, 3, 5]])
    silent = replace(part, projection=np.zeros((0, 3), np.float32))
    assert not as_new(silent, semantic, np.array([1], np.int32)).rows[1].any()
