"""Learns a bundle from a record. `train` is the table of contents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ranking_service.bundles.bundle import Manifest
from ranking_service.bundles.loading import serving_bundle
from ranking_service.scorers.features import SOURCES
from ranking_service.scorers.learned import LearnedScorer
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.impressions import known_outcomes
from zhiyin_offline.evaluation.memory_catalog import Space, semantic_space
from zhiyin_offline.evaluation.protocols import Case, leave_one_out, time_split
from zhiyin_offline.training.asked_service import service_after
from zhiyin_offline.training.attributes.attributes_step import choose_attributes
from zhiyin_offline.training.calibration_step import Calibrated, calibrate, set_aside
from zhiyin_offline.training.choice import Choice, choose
from zhiyin_offline.training.draws import drawn
from zhiyin_offline.training.examples import Example, collect
from zhiyin_offline.training.findings import Findings, what_serves
from zhiyin_offline.training.knob_step import choose_knob
from zhiyin_offline.training.learned_sources.steps import OPTIONAL, build_sources, search_sources
from zhiyin_offline.training.new_items_step import NOTHING_ADDED, as_if_new, choose_new_items
from zhiyin_offline.training.pruning import worth_keeping
from zhiyin_offline.training.ranker import DEPTH
from zhiyin_offline.training.training_settings import NothingToLearn, Progress, TrainingSettings

if TYPE_CHECKING:
    from zhiyin_offline.training.sequence_step import SequencePart, SequenceStep

_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class Trained:
    """A bundle before it is written: its manifest, its files, how it was chosen, and from what.

    `sequence` is the sequence model that serves; None: there is none, or it was of no use.
    """

    manifest: Manifest
    files: dict[str, bytes]
    choice: Choice
    examples: list[Example]
    sequence: SequencePart | None


def train(
    dataset: Dataset,
    vectors: NDArray[np.float32],
    fingerprint: str,
    catalog: str,
    settings: TrainingSettings,
    progress: Progress = lambda step, done, total: None,
) -> Trained:
    """Learns what shall serve a catalogue.

    Args:
        dataset: The record. Everything in it may be learned from.
        vectors: Raw vector of each item, shape (items, d).
        fingerprint: Of their space.
        catalog: Whose record it is.
        settings: How.
        progress: Told how far it is.

    Raises:
        NothingToLearn: No user has three positive events.
    """
    aside = set_aside(dataset, settings.seed)
    cases, learned_from = _cases(dataset, settings, aside)
    if not cases:
        raise NothingToLearn("no user has acted on three items; train again when there are more events")
    semantic = semantic_space(vectors, fingerprint)
    sequence = _sequence(dataset, semantic, learned_from, cases, settings, progress) if settings.sequence else None
    searched = None if sequence is None else sequence.searched
    recipes = search_sources(dataset, learned_from, semantic, cases, settings.seed, lambda step: progress(step, 0, 0))
    asked = build_sources(recipes, OPTIONAL, dataset, learned_from, semantic, settings.seed)
    service = service_after(dataset, semantic, searched, asked, learned_from)
    examples = collect(service, dataset, cases, lambda done: progress("candidates", done, len(cases)))
    examples, kept = worth_keeping(
        examples, OPTIONAL, settings.seed, settings.threads, lambda step: progress(step, 0, 0)
    )
    progress("what attributes add", 0, 0)
    attributes = choose_attributes(dataset, learned_from, examples, settings.seed, settings.threads)
    examples = attributes.examples
    choice = choose(examples, settings.seed, settings.threads, lambda step: progress(step, 0, 0))
    used = what_serves(choice, kept, sequence)
    learned = build_sources(recipes, used.sources, dataset, np.arange(len(dataset.events)), semantic, settings.seed)
    new_items = NOTHING_ADDED
    if choice.best.serves != "builtin":
        progress("new items", 0, 0)
        shown, hidden = as_if_new(dataset, learned_from, cases, settings.seed)
        without = build_sources(recipes, used.sources, dataset, shown.training, semantic, settings.seed)
        unknowing = service_after(dataset, semantic, searched, without, shown.training, hidden)
        new_items = choose_new_items(unknowing, partial(_blend, choice), dataset, shown.cases, hidden)
    progress("diversity", 0, 0)
    service.bundle = replace(service.bundle, scorer=_blend(choice, new_items.amount), learned=asked.only(used.sources))
    knob = choose_knob(service, dataset, semantic.rows, cases)
    until = float(dataset.events.time[-1])
    found = Findings(settings, len(cases), until, choice, used, recipes, attributes, new_items, knob, sequence)
    manifest, files = found.manifest(catalog), found.files(learned)
    chances = Calibrated()
    if len(aside):
        progress("chances", 0, 0)
        heard = searched if used.sequence else None
        before = service_after(dataset, semantic, heard, asked.only(used.sources), _NOTHING)
        chances = calibrate(before, serving_bundle(manifest, files), dataset, aside, settings.seed)
    evidence = {**manifest.evidence, "chances": chances.evidence}
    manifest = replace(manifest, calibration=chances.fields, evidence=evidence)
    return Trained(manifest, files, choice, examples, used.sequence)


def _blend(choice: Choice, new_items: float) -> LearnedScorer:
    """What was chosen, without a learned ranker: that has been fitted to the very cases that are left to judge by."""
    weights = {kind: float(weight) for kind, weight in zip(SOURCES, choice.weights, strict=True)}
    return LearnedScorer(weights if choice.best.serves != "builtin" else None, None, DEPTH, new_items)


def _sequence(
    dataset: Dataset,
    semantic: Space,
    learned_from: NDArray[np.int64],
    cases: list[Case],
    settings: TrainingSettings,
    progress: Progress,
) -> SequenceStep | None:
    # PyTorch is here only where somebody trains.
    from zhiyin_offline.training.sequence_step import learn_sequences

    return learn_sequences(
        dataset, semantic.rows, learned_from, cases, settings.seed, settings.device, settings.run_folder, progress
    )


def restricted(dataset: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """The record without all other events: what a training may see that is evaluated on the rest."""
    return replace(dataset, events=known_outcomes(dataset, rows))


def _cases(
    dataset: Dataset, settings: TrainingSettings, aside: NDArray[np.int64]
) -> tuple[list[Case], NDArray[np.int64]]:
    """Cases by rising time, and what everything else is learned from: nothing of a case's own future.

    Users who are set aside are in neither.
    """
    split = leave_one_out(dataset) if settings.protocol == "leave-one-out" else time_split(dataset)
    out = set(aside.tolist())
    cases = [case for case in split.cases if case.user not in out]
    of_others = ~np.isin(dataset.events.user[split.training], aside)
    return drawn(cases, settings.max_cases, settings.seed), split.training[of_others]
