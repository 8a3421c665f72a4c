"""What the steps of a training found out, and the bundle that it becomes."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ranking_service.bundles.bundle import FEATURES_FILE, RANKER_FILE, Manifest
from ranking_service.bundles.learned_files import learned_files
from ranking_service.candidate import SourceKind
from ranking_service.learned_sources.learned_sources import LearnedSources
from ranking_service.scorers.features import NAMES, SOURCES
from zhiyin_offline.training.attributes.attributes_step import AttributesChoice
from zhiyin_offline.training.choice import Choice, Contender
from zhiyin_offline.training.differences import standard_error
from zhiyin_offline.training.knob_step import KnobChoice
from zhiyin_offline.training.learned_sources.steps import Recipes
from zhiyin_offline.training.new_items_step import NewItemsChoice
from zhiyin_offline.training.ranker import DEPTH
from zhiyin_offline.training.training_settings import TrainingSettings

if TYPE_CHECKING:
    from zhiyin_offline.training.sequence_step import SequencePart, SequenceStep


OUT_OF_FOLD, OUT_OF_FOLD_ERROR = "ndcg@10", "ndcg@10_error"
"""Of a manifest's metrics."""
RECORD_UNTIL = "record_until"
"""Of a manifest's evidence: Unix seconds of the latest event that was learned from."""


@dataclass(frozen=True)
class Used:
    """What of everything that was learned serves: optional sources, and the sequence model."""

    sources: list[SourceKind]
    sequence: SequencePart | None


def what_serves(choice: Choice, kept: list[SourceKind], sequence: SequenceStep | None) -> Used:
    """What the choice makes something of; nothing where the weights of the house are best."""
    if choice.best.serves == "builtin":
        return Used([], None)
    heard = [kind for kind, weight in zip(SOURCES, choice.weights, strict=True) if choice.ranker or weight > 0]
    serving = sequence.serving if sequence is not None and SourceKind.SEQUENCE in heard else None
    return Used([kind for kind in kept if kind in heard], serving)


@dataclass(frozen=True)
class Findings:
    """Everything but the chances, which are looked for when the rest serves.

    Attributes:
        settings: Of the training.
        cases: How many it learned from.
        until: Time of the record's latest event, Unix seconds.
        choice: What makes the order.
        used: What of the optional parts serves.
        recipes: How the learned sources are made.
        attributes: What a ranker reads of attributes and circumstances.
        new_items: What new items get.
        knob: What the default diversity stands for.
        sequence: The search for a sequence model; None: there was none.
    """

    settings: TrainingSettings
    cases: int
    until: float
    choice: Choice
    used: Used
    recipes: Recipes
    attributes: AttributesChoice
    new_items: NewItemsChoice
    knob: KnobChoice
    sequence: SequenceStep | None

    def manifest(self, catalog: str) -> Manifest:
        """The bundle's manifest, made now."""
        choice, knob = self.choice, self.knob.knob
        return Manifest(
            id=time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(3),
            catalog=catalog,
            created_at=time.time(),
            serves=choice.best.serves,
            weights={kind.name.lower(): float(w) for kind, w in zip(SOURCES, choice.weights, strict=True) if w > 0},
            rerank_depth=DEPTH,
            feature_names=NAMES + self.attributes.names if choice.ranker is not None else (),
            new_items=self.new_items.amount,
            knob={"weight": knob.weight, "kept": knob.kept},
            metrics=_metrics(choice.best),
            evidence=self._evidence(),
        )

    def files(self, learned: LearnedSources) -> dict[str, bytes]:
        """The bundle's files by name; `learned`: the sources that serve."""
        files = learned_files(learned)
        if self.used.sequence is not None:
            files |= self.used.sequence.files
        if self.choice.ranker is not None:
            files[RANKER_FILE] = self.choice.ranker.encode()
            if self.attributes.features is not None:
                files[FEATURES_FILE] = self.attributes.features.spec.to_json()
        return files

    def _evidence(self) -> dict[str, Any]:
        choice, sequence = self.choice, self.sequence
        return {
            "protocol": self.settings.protocol,
            "seed": self.settings.seed,
            "cases": self.cases,
            RECORD_UNTIL: self.until,
            "candidates_hold_target": round(choice.ceiling, 4),
            "chosen": choice.best.name,
            "contenders": {contender.name: _metrics(contender) for contender in choice.contenders},
            "sources": {"kept": [kind.name.lower() for kind in self.used.sources], **self.recipes.evidence()},
            "attributes": self.attributes.evidence,
            "new_items": self.new_items.evidence,
            "diversity": self.knob.evidence,
            "sequence_model": None
            if sequence is None
            else {"steps": sequence.best_step, "ndcg@10": sequence.best_ndcg},
        }


def _metrics(contender: Contender) -> dict[str, float]:
    return {
        OUT_OF_FOLD: round(float(contender.ndcg.mean()), 5),
        "recall@10": round(float(contender.recall.mean()), 5),
        OUT_OF_FOLD_ERROR: round(standard_error(contender.ndcg), 5),
    }
