"""Trains the sequence model: as long as validation says it gets better, then once more on everything."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zhiyin_offline.training.sequence.batches import Items, TrainingSequences
from zhiyin_offline.training.sequence.checkpoint import Checkpoint
from zhiyin_offline.training.sequence.model import SequenceModel
from zhiyin_offline.training.sequence.optimisation import Optimisation
from zhiyin_offline.training.sequence.settings import SequenceSettings
from zhiyin_offline.training.sequence.validation import ValidationCases, ndcg, recall, target_ranks

Floats = NDArray[np.float32]
Phase = Literal["search", "refit"]
# Between two looks: fewer change the averaged weights too little.
_LEAST_STEPS = 10


class NothingToTrainOn(ValueError):
    """No user has two items of the catalogue, or no validation case has a history."""


@dataclass(frozen=True)
class Evaluation:
    """One look at the validation users.

    Attributes:
        step: After how many.
        loss: Mean of the training loss since the last look.
        ndcg: NDCG@10.
        recall: Recall@10.
    """

    step: int
    loss: float
    ndcg: float
    recall: float


@dataclass(frozen=True)
class TrainingProgress:
    """Told after every step.

    Attributes:
        phase: `search` for the number of steps, or `refit` on everything.
        step: Done so far, of this phase.
        of_steps: When the phase ends at the latest.
        evaluation: Of this very step, if there was one.
    """

    phase: Phase
    step: int
    of_steps: int
    evaluation: Evaluation | None


Progress = Callable[[TrainingProgress], None]


@dataclass(frozen=True)
class TrainedSequenceModel:
    """A model and the evidence for it.

    Attributes:
        model: In evaluation mode, on the CPU; its items are those that occurred in training.
        trained: Items that occurred in training, rising; the rows of `model.items`.
        item_vectors: By item, shape (items, dimensions); of an item that did not occur: the text part alone.
        known: Items that have a vector, shape (items,): they occurred in training or have a text.
        text_projection: A text vector as it is compared, times this, is the text part; shape (text dimensions,
            dimensions), no rows where the catalogue has no texts.
        settings: It was trained with.
        evaluations: All looks of the search.
        best: The look whose weights were kept, or whose number of passes over the data was repeated.
        searched: The model before it was trained once more on validation's targets too: what those targets may be
            scored by. None: this is it.
        cpu_seconds: Of this process, over all its threads, since training began or went on.
    """

    model: SequenceModel
    trained: NDArray[np.int64]
    item_vectors: Floats
    known: NDArray[np.bool_]
    text_projection: Floats
    settings: SequenceSettings
    evaluations: tuple[Evaluation, ...]
    best: Evaluation
    searched: TrainedSequenceModel | None
    cpu_seconds: float


def train_sequence_model(
    sequences: Sequence[Items],
    validation: ValidationCases,
    item_vectors: Floats | None,
    item_count: int,
    *,
    settings: SequenceSettings | None = None,
    refit_sequences: Sequence[Items] = (),
    seed: int = 0,
    device: str = "cpu",
    run_folder: Path | None = None,
    progress: Progress = lambda _: None,
) -> TrainedSequenceModel:
    """Trains a model. The same data, settings, seed, device and number of threads give the same model.

    Args:
        sequences: Each user's items to learn from, oldest first, before anything that validation asks for.
        validation: Decides when training ends.
        item_vectors: Text vectors as retrieval compares them: centred, length 1; a zero row: an item without text.
            Shape (items, d); None: there are no texts.
        item_count: Items of the catalogue.
        settings: Unset: the defaults.
        refit_sequences: With validation's targets, to train on once more for as many passes as were best; none: the
            searched model is kept.
        seed: Of all that is random.
        device: Of PyTorch: cpu, cuda, cuda:1.
        run_folder: Exists; keeps a checkpoint from look to look, from which a killed training goes on.
        progress: Told after every step; what it raises ends the training.

    Raises:
        NothingToTrainOn: Too little data.
        ValueError: Text vectors are not centred and normalised, or do not fit the catalogue.
    """
    settings = settings or SequenceSettings()
    text = _checked(item_vectors, item_count)
    began = time.process_time()
    cases = validation.sample(settings.validation_users, seed)
    if not len(cases.targets):
        raise NothingToTrainOn("no validation case has a history")
    # Gives the caller's random numbers back as they were.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        search = _Phase("search", sequences, text, settings, seed, device)
        checkpoint = search.checkpoint(run_folder, cases)
        weights, evaluations, best = _search(search, cases, checkpoint, progress)
        searched = _result(search, weights, settings, evaluations, best, None, began)
        if not len(refit_sequences):
            return searched
        final = _Phase("refit", refit_sequences, text, settings, seed, device)
        steps = max(1, round(best.step * final.data.target_count / search.data.target_count))
        weights = _refit(final, steps, final.checkpoint(run_folder, cases, best.step), progress)
        return _result(final, weights, settings, evaluations, best, searched, began)


def _result(
    phase: _Phase,
    weights: dict[str, Tensor],
    settings: SequenceSettings,
    evaluations: list[Evaluation],
    best: Evaluation,
    searched: TrainedSequenceModel | None,
    began: float,
) -> TrainedSequenceModel:
    vectors, known = phase.catalogue(weights)
    model = phase.model(weights).cpu()
    return TrainedSequenceModel(
        model=model,
        trained=phase.trained,
        item_vectors=vectors.cpu().numpy(),
        known=known.cpu().numpy(),
        text_projection=model.items.projection.detach().numpy().copy(),
        settings=settings,
        evaluations=tuple(evaluations),
        best=best,
        searched=searched,
        cpu_seconds=time.process_time() - began,
    )


class _Phase:
    """One training from first weights: its data, with the items that occur numbered from 0."""

    def __init__(
        self, name: Phase, sequences: Sequence[Items], text: Floats, settings: SequenceSettings, seed: int, device: str
    ) -> None:
        self.name, self.settings, self._seed = name, settings, seed
        lengths = [len(sequence) for sequence in sequences]
        flat = np.concatenate([*sequences, np.empty(0, np.int32)]).astype(np.int64)
        self.trained, compact, counts = np.unique(flat, return_inverse=True, return_counts=True)
        pieces = np.split(compact.astype(np.int32), np.cumsum(lengths)[:-1]) if lengths else []
        self.data = TrainingSequences(pieces, settings.max_length, settings.batch_positions, settings.user_balance)
        if not len(self.data):
            raise NothingToTrainOn("no user has two items of the catalogue")
        self._flat, self._lengths, self._all_text = flat, lengths, torch.from_numpy(text).to(device)
        trained_text = self._all_text[torch.from_numpy(self.trained).to(device)]
        self.optimisation = Optimisation(self.data, trained_text, torch.from_numpy(counts), settings, seed)

    def checkpoint(self, folder: Path | None, cases: ValidationCases, *more: int) -> Checkpoint:
        """The file that belongs to exactly this training."""
        parts = (self._flat, np.array(self._lengths), self._all_text.cpu().numpy(), cases.targets, *cases.histories)
        digest = hashlib.blake2b(repr((self.name, self.settings, self._seed, more)).encode(), digest_size=16)
        for part in parts:
            digest.update(np.ascontiguousarray(part).data)
        return Checkpoint(folder / f"{self.name}.checkpoint" if folder else None, digest.hexdigest())

    def model(self, weights: dict[str, Tensor]) -> SequenceModel:
        """A model with these weights, in evaluation mode."""
        optimised = self.optimisation.model
        model = SequenceModel(optimised.items.text, self.settings).to(optimised.items.ids.device)
        model.load_state_dict(weights)
        return model.requires_grad_(False).eval()

    def catalogue(self, weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Vectors of all items and which have one."""
        vectors = self._all_text @ weights["items.projection"]
        trained = torch.from_numpy(self.trained).to(vectors.device)
        vectors[trained] += weights["items.ids"]
        known = self._all_text.any(1)
        known[trained] = True
        return vectors, known


@torch.inference_mode()
def _look(phase: _Phase, weights: dict[str, Tensor], cases: ValidationCases, loss: float) -> Evaluation:
    vectors, known = phase.catalogue(weights)
    ranks = target_ranks(phase.model(weights).user, vectors, known, cases)
    return Evaluation(phase.optimisation.step_count, loss, ndcg(ranks), recall(ranks))


def _search(
    phase: _Phase, cases: ValidationCases, checkpoint: Checkpoint, progress: Progress
) -> tuple[dict[str, Tensor], list[Evaluation], Evaluation]:
    settings, optimisation = phase.settings, phase.optimisation
    pass_steps = phase.data.target_count / settings.batch_positions
    every = max(_LEAST_STEPS, min(settings.evaluate_every, round(2 * pass_steps)))
    patience = max(settings.patience, round(pass_steps))
    evaluations: list[Evaluation] = []
    best, best_weights = Evaluation(0, float("nan"), -1.0, 0.0), optimisation.averaged()
    device = optimisation.model.items.ids.device
    if (saved := checkpoint.load()) is not None:
        optimisation.restore(saved["optimisation"])
        evaluations = [Evaluation(*row) for row in saved["evaluations"]]
        best = max(evaluations, key=lambda look: look.ndcg)
        best_weights = {name: value.to(device) for name, value in saved["best_weights"].items()}
    losses: list[float] = []
    while optimisation.step_count < settings.max_steps:
        # Judged by the last look, not by the last step: a training that goes on must decide the same.
        if evaluations and evaluations[-1].step - best.step >= patience:
            break
        losses.append(optimisation.step())
        step, look = optimisation.step_count, None
        if step % every == 0 or step == settings.max_steps:
            weights = optimisation.averaged()
            look = _look(phase, weights, cases, float(np.mean(losses)))
            losses = []
            evaluations.append(look)
            if look.ndcg > best.ndcg:
                best, best_weights = look, weights
            rows = [(e.step, e.loss, e.ndcg, e.recall) for e in evaluations]
            checkpoint.save({"optimisation": optimisation.state(), "evaluations": rows, "best_weights": best_weights})
        progress(TrainingProgress("search", step, settings.max_steps, look))
    return best_weights, evaluations, best


def _refit(phase: _Phase, steps: int, checkpoint: Checkpoint, progress: Progress) -> dict[str, Tensor]:
    optimisation = phase.optimisation
    if (saved := checkpoint.load()) is not None:
        optimisation.restore(saved["optimisation"])
    while optimisation.step_count < steps:
        optimisation.step()
        if optimisation.step_count % phase.settings.evaluate_every == 0 or optimisation.step_count == steps:
            checkpoint.save({"optimisation": optimisation.state()})
        progress(TrainingProgress("refit", optimisation.step_count, steps, None))
    return optimisation.averaged()


def _checked(item_vectors: Floats | None, item_count: int) -> Floats:
    if item_vectors is None:
        return np.empty((item_count, 0), np.float32)
    lengths = np.linalg.norm(item_vectors, axis=1)
    if len(item_vectors) != item_count:
        raise ValueError(f"{len(item_vectors)} text vectors for {item_count} items")
    if not np.all((lengths == 0) | (np.abs(lengths - 1) < 1e-3)):
        raise ValueError("text vectors must have length 1, or 0 where an item has no text")
    return np.ascontiguousarray(item_vectors, np.float32)
