"""The sequence model as a step of a training: what it is learned from, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.zhiyin_offline.training.chain_world import (
    FINGERPRINT,
    START,
    chain_vectors,
    chain_world,
    short_sequence_training,
)
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin_offline.evaluation.dataset import Dataset, EventRows
from zhiyin_offline.evaluation.memory_catalog import semantic_space
from zhiyin_offline.evaluation.protocols import leave_one_out

pytest.importorskip("torch", reason="the extra `export` (PyTorch) is not installed")

from zhiyin_offline.training import sequence_step
from zhiyin_offline.training.sequence_step import SequenceStep, learn_sequences

WORLD = chain_world()
SPLIT = leave_one_out(WORLD)
ROWS = semantic_space(chain_vectors(WORLD), FINGERPRINT).rows


def learn(run_folder: Path | None = None, seed: int = 0, dataset: Dataset = WORLD) -> SequenceStep:
    learned = learn_sequences(dataset, ROWS, SPLIT.training, SPLIT.cases, seed, "cpu", run_folder, lambda *_: None)
    assert learned is not None
    return learned


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    short_sequence_training(monkeypatch)


@pytest.fixture(scope="module")
def step() -> SequenceStep:
    with pytest.MonkeyPatch.context() as monkeypatch:
        short_sequence_training(monkeypatch)
        return learn()


def test_the_model_that_judges_the_cases_knows_nothing_of_their_later_events(step: SequenceStep) -> None:
    """All events behind a case's target become others: what is searched stays; what serves has learned from them."""
    events, latest = WORLD.events, {case.user: case.target_row for case in SPLIT.cases}
    later = np.array([row for row in range(len(events)) if row > latest.get(int(events.user[row]), len(events))])
    dropped = np.setdiff1d(np.setdiff1d(np.arange(len(events)), SPLIT.training), list(latest.values()))
    item = events.item.copy()
    item[np.union1d(later, dropped).astype(np.int64)] = 7
    other = learn(dataset=replace(WORLD, events=replace(events, item=item)))
    assert other.searched.files == step.searched.files
    assert other.serving.files != step.serving.files


def test_both_models_are_whole_and_two_different_ones(step: SequenceStep) -> None:
    assert step.searched.space.fingerprint != step.serving.space.fingerprint
    for part in (step.searched, step.serving):
        assert part.vectors.shape == (len(part.item_ids), 32)
        assert part.projection.shape == (ROWS.shape[1], 32)
        rows = [WORLD.item_numbers[item_id] for item_id in part.item_ids]
        assert rows == sorted(rows)
        assert np.array_equal(part.space.rows[rows], part.vectors)
        assert part.space.known is not None
        assert part.space.known.all()  # every item has words
        assert not part.space.normalize


def test_the_same_seed_gives_the_same_model_and_another_seed_another(step: SequenceStep) -> None:
    assert learn().serving.files == step.serving.files
    assert learn(seed=1).serving.files != step.serving.files


def test_a_training_that_was_killed_goes_on_from_its_checkpoint(step: SequenceStep, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(name: str, done: int, total: int) -> None:
        if done == 15:
            raise Killed

    with pytest.raises(Killed):
        learn_sequences(WORLD, ROWS, SPLIT.training, SPLIT.cases, 0, "cpu", tmp_path, kill)
    assert any(tmp_path.iterdir())
    said: list[str] = []
    resumed = learn_sequences(
        WORLD, ROWS, SPLIT.training, SPLIT.cases, 0, "cpu", tmp_path, lambda name, *_: said.append(name)
    )
    assert resumed is not None
    assert resumed.serving.files == step.serving.files
    assert 0 < said.count("sequence model, search") < 15


def test_an_item_chosen_again_stands_at_its_latest_time() -> None:
    rows = EventRows(WORLD.item_numbers)
    for time, (item, kind) in enumerate(
        [(3, pb.EVENT_TYPE_LIKE), (5, pb.EVENT_TYPE_LIKE), (9, pb.EVENT_TYPE_DISLIKE), (3, pb.EVENT_TYPE_CLICK)]
    ):
        rows.add(0, f"i{item}", kind, None, START + time)
    dataset = replace(WORLD, user_ids=("u",), events=rows.events())
    assert sequence_step._items(dataset, np.arange(4)).tolist() == [5, 3]


def test_too_little_to_train_on_gives_no_model() -> None:
    rows = EventRows(WORLD.item_numbers)
    for user in range(4):
        rows.add(user, f"i{user}", pb.EVENT_TYPE_LIKE, None, START + user)
    dataset = Dataset(WORLD.items, tuple("abcd"), {}, rows.events())
    learned = learn_sequences(dataset, ROWS, np.arange(4), (), 0, "cpu", None, lambda *_: None)
    assert learned is None


def test_without_words_the_model_knows_ids_only() -> None:
    nothing = np.zeros_like(ROWS)
    learned = learn_sequences(WORLD, nothing, SPLIT.training, SPLIT.cases, 0, "cpu", None, lambda *_: None)
    assert learned is not None
    assert len(learned.serving.projection) == 0
    assert np.isfinite(learned.serving.vectors).all()
