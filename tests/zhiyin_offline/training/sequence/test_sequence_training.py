"""The sequence model learns what comes next, from ids or from texts, and takes the same course from every start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the extra `export` (PyTorch) is not installed")

from zhiyin_offline.training.sequence.settings import SequenceSettings  # noqa: E402
from zhiyin_offline.training.sequence.training import (  # noqa: E402
    NothingToTrainOn,
    TrainedSequenceModel,
    TrainingProgress,
    train_sequence_model,
)
from zhiyin_offline.training.sequence.validation import ValidationCases, recall, target_ranks  # noqa: E402

if TYPE_CHECKING:
    from conftest import World

SMALL = SequenceSettings(
    dimensions=32,
    feed_forward=64,
    dropout=0.1,
    max_length=8,
    learning_rate=5e-3,
    warmup_steps=5,
    averaging=0.9,
    batch_positions=512,
    evaluate_every=15,
    patience=30,
    max_steps=60,
)


class Killed(Exception):
    pass


def cases_of(sequences: list[NDArray[np.int32]], place: int) -> ValidationCases:
    return ValidationCases(
        [sequence[:place] for sequence in sequences], np.array([sequence[place] for sequence in sequences], np.int32)
    )


def train(
    world: World, text: NDArray[np.float32] | None, settings: SequenceSettings = SMALL, **more: Any
) -> TrainedSequenceModel:
    known = [sequence[:-2] for sequence in world.sequences]
    more = {"seed": 3, **more}
    return train_sequence_model(known, cases_of(world.sequences, -2), text, len(world.text), settings=settings, **more)


def recall_of(trained: TrainedSequenceModel, world: World) -> float:
    vectors, known = torch.from_numpy(trained.item_vectors), torch.from_numpy(trained.known)
    with torch.inference_mode():
        return recall(target_ranks(trained.model.user, vectors, known, cases_of(world.sequences, -1)), 5)


def popularity_recall(world: World) -> float:
    counts = np.bincount(np.concatenate([s[:-1] for s in world.sequences]), minlength=len(world.text))
    top = np.argsort(-counts)
    hits = [s[-1] in [i for i in top[:20] if i not in s[:-1]][:5] for s in world.sequences]
    return float(np.mean(hits))


@pytest.fixture(scope="module")
def with_text(world: World) -> TrainedSequenceModel:
    return train(world, world.text)


@pytest.mark.parametrize("sampled", [False, True], ids=["full softmax", "sampled softmax"])
def test_ids_alone_beat_popularity(world: World, sampled: bool) -> None:
    settings = replace(SMALL, full_softmax_items=10 if sampled else 50_000, sampled_items=32)
    trained = train(world, None, settings)
    assert recall_of(trained, world) > 3 * popularity_recall(world)
    assert not trained.known[world.cold].any()
    assert trained.text_projection.shape == (0, 32)


def test_text_serves_items_that_nobody_has_acted_on(world: World, with_text: TrainedSequenceModel) -> None:
    assert recall_of(with_text, world) > 3 * popularity_recall(world)
    assert with_text.known.all()
    with torch.inference_mode():
        users = [with_text.item_vectors[sequence[-8:]] for sequence in world.sequences]
        states = [with_text.model.user(torch.from_numpy(user)[None])[0, -1].numpy() for user in users]
    scores = np.array(states) @ with_text.item_vectors[world.cold].T
    last_topics = np.array([sequence[-1] // 5 for sequence in world.sequences])
    right = scores.argmax(1) == world.next_topic[last_topics]
    assert right.mean() > 0.6


def test_items_without_text_are_served_by_their_ids(world: World) -> None:
    text = world.text.copy()
    text[::3] = 0.0
    trained = train(world, text)
    assert recall_of(trained, world) > 3 * popularity_recall(world)
    assert trained.known.tolist() == [bool(text[i].any()) or i not in world.cold for i in range(len(text))]


def test_same_seed_same_model_other_seed_another(world: World, with_text: TrainedSequenceModel) -> None:
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again = train(world, world.text)
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's random numbers are left alone
    np.testing.assert_array_equal(again.item_vectors, with_text.item_vectors)
    assert again.evaluations == with_text.evaluations
    assert not np.array_equal(train(world, world.text, seed=4).item_vectors, with_text.item_vectors)


RESUMED = replace(SMALL, max_steps=20, evaluate_every=10)


@pytest.fixture(scope="module")
def uninterrupted(world: World) -> TrainedSequenceModel:
    return train(world, world.text, RESUMED, refit_sequences=[sequence[:-1] for sequence in world.sequences])


@pytest.mark.parametrize("killed_in", ["search", "refit"])
def test_a_killed_training_goes_on_as_if_nothing_had_happened(
    world: World, tmp_path: Path, killed_in: str, uninterrupted: TrainedSequenceModel
) -> None:
    more = {"refit_sequences": [sequence[:-1] for sequence in world.sequences], "run_folder": tmp_path}
    steps: list[int] = []

    def kill(progress: TrainingProgress) -> None:
        if progress.phase == killed_in and progress.step == 15:
            raise Killed

    def watch(progress: TrainingProgress) -> None:
        if progress.phase == killed_in:
            steps.append(progress.step)

    with pytest.raises(Killed):
        train(world, world.text, RESUMED, progress=kill, **more)
    resumed = train(world, world.text, RESUMED, progress=watch, **more)
    assert steps[0] == 11
    np.testing.assert_array_equal(resumed.item_vectors, uninterrupted.item_vectors)
    assert resumed.evaluations == uninterrupted.evaluations
    assert resumed.searched is not None


def test_a_checkpoint_of_other_data_is_not_gone_on_from(world: World, tmp_path: Path) -> None:
    settings = replace(SMALL, max_steps=10, evaluate_every=10)
    train(world, world.text, settings, run_folder=tmp_path)
    steps: list[int] = []
    train(world, None, settings, run_folder=tmp_path, progress=lambda progress: steps.append(progress.step))
    assert steps == list(range(1, 11))


def test_ends_when_validation_gets_no_better(world: World) -> None:
    trained = train(world, world.text, replace(SMALL, max_steps=400, evaluate_every=10))
    assert trained.evaluations[-1].step < 400
    assert trained.best.ndcg == max(look.ndcg for look in trained.evaluations)
    assert trained.evaluations[-1].step - trained.best.step == SMALL.patience


def test_refit_repeats_the_best_number_of_passes_on_everything(world: World) -> None:
    seen: list[TrainingProgress] = []
    settings = replace(SMALL, max_steps=20, evaluate_every=10)
    trained = train(world, None, settings, refit_sequences=[s[:-1] for s in world.sequences], progress=seen.append)
    targets = sum(len(sequence) - 3 for sequence in world.sequences)
    refit = [progress.step for progress in seen if progress.phase == "refit"]
    assert refit[-1] == round(trained.best.step * (targets + len(world.sequences)) / targets)


def test_too_little_data_is_said(world: World) -> None:
    single = [np.array([1], np.int32)]
    with pytest.raises(NothingToTrainOn, match="two items"):
        train_sequence_model(single, cases_of(world.sequences, -1), None, len(world.text), settings=SMALL)
    nobody = ValidationCases([np.empty(0, np.int32)], np.array([1], np.int32))
    with pytest.raises(NothingToTrainOn, match="history"):
        train_sequence_model(world.sequences, nobody, None, len(world.text), settings=SMALL)


def test_text_vectors_must_be_those_that_retrieval_compares(world: World) -> None:
    with pytest.raises(ValueError, match="length 1"):
        train(world, 2 * world.text)
    with pytest.raises(ValueError, match="60 items"):
        train_sequence_model(world.sequences, cases_of(world.sequences, -1), world.text[1:], 60, settings=SMALL)
