"""Learns a bundle from a record. `train` is the table of contents."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ranking_service.bundles.bundle import FEATURES_FILE, RANKER_FILE, SEQUENCE_FILE, SEQUENCE_ITEMS_FILE, Manifest
from ranking_service.bundles.learned_files import learned_files
from ranking_service.bundles.loading import serving_bundle
from ranking_service.bundles.sequence_files import SPACE, sequence_model
from ranking_service.bundles.serving_bundle import BUILTIN, ServingBundle
from ranking_service.candidate import SourceKind
from ranking_service.learned_sources.learned_sources import LearnedSources
from ranking_service.scorers.features import NAMES, SOURCES
from ranking_service.scorers.learned import LearnedScorer
from ranking_service.scorers.scorer import BuiltinScorer
from ranking_service.scorers.source_weights import source_weights
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.impressions import known_outcomes
from zhiyin_offline.evaluation.in_process import RecordedService
from zhiyin_offline.evaluation.memory_catalog import SEMANTIC, MemoryCatalog, Space, semantic_space
from zhiyin_offline.evaluation.protocols import Case, leave_one_out, time_split
from zhiyin_offline.training.attributes.attributes_step import choose_attributes
from zhiyin_offline.training.calibration_step import calibrate, set_aside
from zhiyin_offline.training.choice import Choice, Contender, choose
from zhiyin_offline.training.examples import Example, collect
from zhiyin_offline.training.knob_step import choose_knob
from zhiyin_offline.training.learned_sources.steps import OPTIONAL, build_sources, search_sources
from zhiyin_offline.training.new_items_step import NOTHING_ADDED, as_if_new, as_new, choose_new_items
from zhiyin_offline.training.pruning import worth_keeping
from zhiyin_offline.training.ranker import DEPTH

if TYPE_CHECKING:
    from zhiyin_offline.training.sequence_step import SequencePart, SequenceStep

Protocol = Literal["leave-one-out", "time-split"]
Progress = Callable[[str, int, int], None]
"""Told the step, and how much of how much of it is done."""


_NOTHING = np.empty(0, np.int64)


class NothingToLearn(Exception):
    """The record has too few users with a history; the message says what is missing."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        protocol: What is predicted: each user's latest event, or the latest events of all.
        max_cases: Cases learned from, drawn evenly; more take longer and teach little more.
        seed: Of everything random.
        threads: Of the learned ranker.
        sequence: Whether a sequence model is trained; it needs PyTorch.
        device: Of PyTorch.
        run_folder: Keeps checkpoints of the sequence model; None: none.
    """

    protocol: Protocol = "leave-one-out"
    max_cases: int = 8_000
    seed: int = 0
    threads: int = 1
    sequence: bool = True
    device: str = "cpu"
    run_folder: Path | None = None


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
    service = _service(dataset, semantic, searched, asked, learned_from)
    examples = collect(service, dataset, cases, lambda done: progress("candidates", done, len(cases)))
    examples, kept = worth_keeping(
        examples, OPTIONAL, settings.seed, settings.threads, lambda step: progress(step, 0, 0)
    )
    progress("what attributes add", 0, 0)
    attributes = choose_attributes(dataset, learned_from, examples, settings.seed, settings.threads)
    examples = attributes.examples
    choice = choose(examples, settings.seed, settings.threads, lambda step: progress(step, 0, 0))
    used = _used(choice, kept, sequence)
    learned = build_sources(recipes, used.sources, dataset, np.arange(len(dataset.events)), semantic, settings.seed)
    new_items = NOTHING_ADDED
    if choice.best.serves != "builtin":
        progress("new items", 0, 0)
        shown, hidden = as_if_new(dataset, learned_from, cases, settings.seed)
        without = build_sources(recipes, used.sources, dataset, shown.training, semantic, settings.seed)
        unknowing = _service(dataset, semantic, searched, without, shown.training, hidden)
        new_items = choose_new_items(unknowing, partial(_blend, choice), dataset, shown.cases, hidden)
    progress("diversity", 0, 0)
    service.bundle = replace(service.bundle, scorer=_blend(choice, new_items.amount), learned=asked.only(used.sources))
    knob = choose_knob(service, dataset, semantic.rows, cases)
    manifest = Manifest(
        id=time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(3),
        catalog=catalog,
        created_at=time.time(),
        serves=choice.best.serves,
        weights={kind.name.lower(): float(w) for kind, w in zip(SOURCES, choice.weights, strict=True) if w > 0},
        rerank_depth=DEPTH,
        feature_names=NAMES + attributes.names if choice.ranker is not None else (),
        new_items=new_items.amount,
        knob={"weight": knob.knob.weight, "kept": knob.knob.kept},
        metrics=_metrics(choice.best),
        evidence={
            "protocol": settings.protocol,
            "seed": settings.seed,
            "cases": len(cases),
            "candidates_hold_target": round(choice.ceiling, 4),
            "chosen": choice.best.name,
            "contenders": {contender.name: _metrics(contender) for contender in choice.contenders},
            "sources": {"kept": [kind.name.lower() for kind in used.sources], **recipes.evidence()},
            "attributes": attributes.evidence,
            "new_items": new_items.evidence,
            "diversity": knob.evidence,
            "sequence_model": None
            if sequence is None
            else {"steps": sequence.best_step, "ndcg@10": sequence.best_ndcg},
        },
    )
    files = {RANKER_FILE: choice.ranker.encode()} if choice.ranker is not None else {}
    if choice.ranker is not None and attributes.features is not None:
        files[FEATURES_FILE] = attributes.features.spec.to_json()
    files |= {**(used.sequence.files if used.sequence else {}), **learned_files(learned)}
    progress("chances", 0, 0)
    before = _service(dataset, semantic, searched if used.sequence else None, asked.only(used.sources), _NOTHING)
    chances = calibrate(before, serving_bundle(manifest, files), dataset, aside, settings.seed)
    evidence = {**manifest.evidence, "chances": chances.evidence}
    manifest = replace(manifest, calibration=chances.fields, evidence=evidence)
    return Trained(manifest, files, choice, examples, used.sequence)


@dataclass(frozen=True)
class _Used:
    """What of everything that was learned serves: optional sources, and the sequence model."""

    sources: list[SourceKind]
    sequence: SequencePart | None


def _used(choice: Choice, kept: list[SourceKind], sequence: SequenceStep | None) -> _Used:
    """What the choice makes something of; nothing where the weights of the house are best."""
    if choice.best.serves == "builtin":
        return _Used([], None)
    heard = [kind for kind, weight in zip(SOURCES, choice.weights, strict=True) if choice.ranker or weight > 0]
    serving = sequence.serving if sequence is not None and SourceKind.SEQUENCE in heard else None
    return _Used([kind for kind in kept if kind in heard], serving)


def _service(
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


def serving_spaces(vectors: NDArray[np.float32], fingerprint: str, trained: Trained | None) -> dict[str, Space]:
    """The spaces of a catalogue that a bundle serves, for lists in this process."""
    return _spaces(semantic_space(vectors, fingerprint), None if trained is None else trained.sequence)


def _spaces(semantic: Space, sequence: SequencePart | None) -> dict[str, Space]:
    return {SEMANTIC: semantic} if sequence is None else {SEMANTIC: semantic, SPACE: sequence.space}


def _asking(sequence: SequencePart | None, learned: LearnedSources) -> ServingBundle:
    """A bundle that asks everything that was learned; its scores are not looked at."""
    model = None
    if sequence is not None:
        model = sequence_model(sequence.files[SEQUENCE_FILE], sequence.files[SEQUENCE_ITEMS_FILE], 1)
    return ServingBundle(BUILTIN, BuiltinScorer(source_weights), model, learned)


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
    drawn = np.random.default_rng(settings.seed).permutation(len(cases))[: settings.max_cases]
    of_others = ~np.isin(dataset.events.user[split.training], aside)
    return [cases[int(i)] for i in np.sort(drawn)], split.training[of_others]


def _metrics(contender: Contender) -> dict[str, float]:
    count = max(len(contender.ndcg), 1)
    return {
        "ndcg@10": round(float(contender.ndcg.mean()), 5),
        "recall@10": round(float(contender.recall.mean()), 5),
        "ndcg@10_error": round(float(contender.ndcg.std()) / count**0.5, 5),
    }
