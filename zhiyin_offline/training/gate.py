"""Whether a new bundle may take over: not when it is significantly worse than the one that serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ranking_service.bundles.bundle import (
    FEATURES_FILE,
    RANKER_FILE,
    BundleUnusable,
    Manifest,
    active_bundle,
    read_file,
    read_manifest,
)
from ranking_service.bundles.loading import attribute_features
from ranking_service.bundles.serving_bundle import BUILTIN
from ranking_service.scorers.features import NAMES, SOURCES
from ranking_service.scorers.tree_ranker import TreeRanker
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.training.attributes.attributes_step import with_attributes, without_attributes
from zhiyin_offline.training.choice import Scores, judge
from zhiyin_offline.training.differences import standard_error
from zhiyin_offline.training.examples import Example
from zhiyin_offline.training.findings import OUT_OF_FOLD, OUT_OF_FOLD_ERROR, RECORD_UNTIL
from zhiyin_offline.training.ranker import ranked
from zhiyin_offline.training.train import Trained

# Standard errors of the difference beyond which it is not chance.
_SIGNIFICANT = 2.0
# Cases after the old bundle's record that it takes to compare on them alone.
_FEW = 50


@dataclass(frozen=True)
class Verdict:
    """What came out: `worse` when the new bundle must not take over by itself."""

    worse: bool
    text: str


def compare_with_serving(folder: Path, trained: Trained, dataset: Dataset) -> Verdict:
    """Scores the cases of the training by the bundle that serves.

    A ranker that serves knows by heart what it learned from; a new one, judged out of fold, would never take over. It
    is asked about cases that came after its record, and where these are few its own figures out of fold stand for it.

    Args:
        folder: Of the catalogue's bundles.
        trained: The new one; its own figures are out of fold.
        dataset: What it was learned from.
    """
    new = trained.choice.best.ndcg
    try:
        name = active_bundle(folder) or BUILTIN
        manifest = Manifest(BUILTIN, "", 0.0, "builtin") if name == BUILTIN else read_manifest(folder / name)
        old, _ = judge(*_scores(folder / name, manifest, trained.examples, dataset))
    except (OSError, BundleUnusable, ValueError) as problem:
        return Verdict(False, f"nothing to compare with: {problem}")
    if manifest.serves != "ranker" or OUT_OF_FOLD_ERROR not in manifest.metrics:
        return _verdict(float((new - old).mean()), standard_error(new - old), f"{name}, which serves")
    until = float(manifest.evidence.get(RECORD_UNTIL, np.inf))
    after = np.array([example.asker.now > until for example in trained.examples])
    if np.count_nonzero(after) >= _FEW:
        difference = (new - old)[after]
        cases = f"on {len(difference)} cases after its record"
        return _verdict(float(difference.mean()), standard_error(difference), f"{name}, which serves, {cases}")
    error = float(np.hypot(standard_error(new), manifest.metrics[OUT_OF_FOLD_ERROR]))
    lead = float(new.mean()) - manifest.metrics[OUT_OF_FOLD]
    return _verdict(lead, error, f"{name}, which serves, by what each found out of fold")


def _verdict(difference: float, error: float, against: str) -> Verdict:
    return Verdict(difference < -_SIGNIFICANT * error, f"ndcg@10 {difference:+.4f} ± {error:.4f} against {against}")


def _scores(
    folder: Path, manifest: Manifest, examples: Sequence[Example], dataset: Dataset
) -> tuple[Sequence[Example], Scores]:
    """The examples as the bundle reads them, and how it scores them."""
    if manifest.serves == "builtin":
        return examples, lambda example: example.builtin
    weights = np.array([manifest.weights.get(kind.name.lower(), 0.0) for kind in SOURCES], np.float32)
    if manifest.serves == "blend":
        return examples, lambda example: example.blend(weights)
    names = (RANKER_FILE, FEATURES_FILE) if FEATURES_FILE in manifest.files else (RANKER_FILE,)
    files = {name: read_file(folder, manifest, name) for name in names}
    attributes = attribute_features(files)
    if manifest.feature_names != NAMES + (attributes.spec.names if attributes is not None else ()):
        raise BundleUnusable(f"bundle {manifest.id} was trained by another release")
    trees = TreeRanker(files[RANKER_FILE].decode())
    read = without_attributes(examples) if attributes is None else with_attributes(examples, attributes, dataset)
    return read, lambda example: ranked(example, weights, trees)
