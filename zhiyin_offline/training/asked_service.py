"""The service as a training asks it: after some rows of the record, with everything that was learned from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ranking_service.bundles.bundle import SEQUENCE_FILE, SEQUENCE_ITEMS_FILE
from ranking_service.bundles.sequence_files import SPACE, sequence_model
from ranking_service.bundles.serving_bundle import BUILTIN, ServingBundle
from ranking_service.learned_sources.learned_sources import LearnedSources
from ranking_service.scorers.scorer import BuiltinScorer
from ranking_service.scorers.source_weights import source_weights
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.in_process import RecordedService
from zhiyin_offline.evaluation.memory_catalog import SEMANTIC, MemoryCatalog, Space, semantic_space
from zhiyin_offline.training.new_items_step import as_new

if TYPE_CHECKING:
    from zhiyin_offline.training.sequence_step import SequencePart


def service_after(
    dataset: Dataset,
    semantic: Space,
    sequence: SequencePart | None,
    learned: LearnedSources,
    known: NDArray[np.int64],
    hidden: NDArray[np.int32] | None = None,
) -> RecordedService:
    """The service after these rows, asking everything that was learned; `hidden` items are as new to the sequence."""
    spaces = _spaces(semantic, sequence)
    if sequence is not None and hidden is not None:
        spaces[SPACE] = as_new(sequence, semantic, hidden)
    service = RecordedService(dataset, MemoryCatalog(dataset.items, spaces), bundle=_asking(sequence, learned))
    service.statistics.fold(known)
    return service


def serving_spaces(vectors: NDArray[np.float32], fingerprint: str, sequence: SequencePart | None) -> dict[str, Space]:
    """The spaces of a catalogue whose bundle has this sequence model, for lists in this process."""
    return _spaces(semantic_space(vectors, fingerprint), sequence)


def _spaces(semantic: Space, sequence: SequencePart | None) -> dict[str, Space]:
    return {SEMANTIC: semantic} if sequence is None else {SEMANTIC: semantic, SPACE: sequence.space}


def _asking(sequence: SequencePart | None, learned: LearnedSources) -> ServingBundle:
    """A bundle that asks everything that was learned; its scores are not looked at."""
    model = None
    if sequence is not None:
        model = sequence_model(sequence.files[SEQUENCE_FILE], sequence.files[SEQUENCE_ITEMS_FILE], 1)
    return ServingBundle(BUILTIN, BuiltinScorer(source_weights), model, learned)
