"""The sequence model as a step of a training: searched on what came before the cases, then refitted on everything.

The searched model has not seen what the cases ask for; weights and ranker are learned from its opinions. The refitted
one serves.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ranking_service.bundles.bundle import SEQUENCE_FILE, SEQUENCE_ITEMS_FILE
from ranking_service.bundles.sequence_files import sequence_items
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.memory_catalog import Space
from zhiyin_offline.evaluation.protocols import Case, user_rows
from zhiyin_offline.training.sequence.export import GRAPH_FILE, ITEMS_FILE, export_sequence_model
from zhiyin_offline.training.sequence.item_side import ItemSide
from zhiyin_offline.training.sequence.training import NothingToTrainOn, TrainedSequenceModel, train_sequence_model
from zhiyin_offline.training.sequence.validation import ValidationCases

Floats = NDArray[np.float32]
Items = NDArray[np.int32]


@dataclass(frozen=True)
class SequencePart:
    """A trained model as a bundle and a catalogue take it.

    Attributes:
        files: Of a bundle, by name.
        space: Of its item vectors.
        item_ids: Of the items that occurred in training, rising by number.
        vectors: Of these items, shape (n, d).
        projection: Makes the vector of any other item of its semantic vector, shape (semantic d, d).
    """

    files: dict[str, bytes]
    space: Space
    item_ids: tuple[str, ...]
    vectors: Floats
    projection: Floats


@dataclass(frozen=True)
class SequenceStep:
    """Both models: `searched` for the cases, `serving` for the bundle; and when the search ended."""

    searched: SequencePart
    serving: SequencePart
    best_step: int
    best_ndcg: float


def learn_sequences(
    dataset: Dataset,
    semantic: Floats,
    learned_from: NDArray[np.int64],
    cases: Sequence[Case],
    seed: int,
    device: str,
    run_folder: Path | None,
    progress: Callable[[str, int, int], None],
) -> SequenceStep | None:
    """Trains the model; None when there is too little to train on.

    Args:
        dataset: The record.
        semantic: Vectors of the items as the semantic space compares them, shape (items, d).
        learned_from: Rows before the cases.
        cases: Decide when the training ends.
        seed: Of everything random.
        device: Of PyTorch.
        run_folder: Keeps checkpoints, from which a killed training goes on; None: none are kept.
        progress: Told how far it is.
    """
    allowed = np.zeros(len(dataset.events), np.bool_)
    allowed[learned_from] = True
    by_user = user_rows(dataset)
    before = [_items(dataset, rows[allowed[rows]]) for rows in by_user]
    everything = [_items(dataset, rows) for rows in by_user]
    validation = ValidationCases(
        [_items(dataset, case.history) for case in cases], np.array([case.target for case in cases], np.int32)
    )
    try:
        trained = train_sequence_model(
            [sequence for sequence in before if len(sequence) > 1],
            validation,
            semantic if semantic.any() else None,
            len(dataset.items),
            refit_sequences=[sequence for sequence in everything if len(sequence) > 1],
            seed=seed,
            device=device,
            run_folder=run_folder,
            progress=lambda said: progress(f"sequence model, {said.phase}", said.step, said.of_steps),
        )
    except NothingToTrainOn:
        return None
    searched = trained.searched or trained
    return SequenceStep(_part(dataset, searched), _part(dataset, trained), trained.best.step, trained.best.ndcg)


def _items(dataset: Dataset, rows: NDArray[np.int64]) -> Items:
    """Items chosen, oldest first, each at its latest time: as ranking reads a history."""
    items = dataset.events.item[rows[dataset.positive[rows]]]
    _, last = np.unique(items[::-1], return_index=True)
    return items[np.sort(len(items) - 1 - last)]


def _part(dataset: Dataset, trained: TrainedSequenceModel) -> SequencePart:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_sequence_model(trained, folder)
        graph, items = (folder / GRAPH_FILE).read_bytes(), ItemSide.load(folder / ITEMS_FILE)
    rows = trained.trained
    ids = tuple(dataset.item_ids[int(row)] for row in rows)
    vectors = items.item_vectors[rows]
    digest = hashlib.sha256(graph)
    for array in (vectors, items.text_projection):
        digest.update(np.ascontiguousarray(array).data)
    fingerprint = f"sequence-{digest.hexdigest()[:32]}"
    files = {
        SEQUENCE_FILE: graph,
        SEQUENCE_ITEMS_FILE: sequence_items(ids, vectors, items.text_projection, fingerprint),
    }
    space = Space(
        np.where(items.known[:, None], items.item_vectors, 0.0).astype(np.float32),
        1,
        fingerprint,
        normalize=False,
        known=items.known,
    )
    return SequencePart(files, space, ids, vectors, items.text_projection)
