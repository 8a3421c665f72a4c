"""From the files of a bundle to what serves."""

from __future__ import annotations

from collections.abc import Mapping

from ranking_service.attribute_features.attribute_features import AttributeFeatures
from ranking_service.attribute_features.feature_spec import FeatureSpec
from ranking_service.bundles.bundle import (
    FEATURES_FILE,
    RANKER_FILE,
    SEQUENCE_FILE,
    SEQUENCE_ITEMS_FILE,
    BundleUnusable,
    Manifest,
)
from ranking_service.bundles.learned_files import learned_sources
from ranking_service.bundles.sequence_files import SPACE, sequence_model
from ranking_service.bundles.serving_bundle import ServingBundle
from ranking_service.candidate import SourceKind
from ranking_service.diversity.knob import HOUSE_KNOB, Knob
from ranking_service.scorers.calibration import calibration_of
from ranking_service.scorers.features import NAMES
from ranking_service.scorers.learned import LearnedScorer
from ranking_service.scorers.tree_ranker import TreeRanker


def serving_bundle(manifest: Manifest, files: Mapping[str, bytes]) -> ServingBundle:
    """The bundle in memory.

    Raises:
        BundleUnusable: A file is missing or not what the manifest says, or it is of another release.
    """
    try:
        weights = {SourceKind[name.upper()]: float(weight) for name, weight in manifest.weights.items()}
        attributes, ranker = None, None
        if manifest.serves == "ranker":
            attributes = attribute_features(files)
            ranker = _ranker(manifest, files[RANKER_FILE].decode(), attributes)
        sequence = None
        if SEQUENCE_FILE in files:
            sequence = sequence_model(files[SEQUENCE_FILE], files[SEQUENCE_ITEMS_FILE], manifest.spaces.get(SPACE, 0))
        learned = learned_sources(files)
        knob = Knob(float(manifest.knob["weight"]), int(manifest.knob["kept"])) if manifest.knob else HOUSE_KNOB
        calibration = calibration_of(manifest.calibration)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleUnusable(f"bundle {manifest.id} cannot be served: {error}") from None
    scorer = LearnedScorer(
        weights if manifest.serves != "builtin" else None,
        ranker,
        manifest.rerank_depth,
        manifest.new_items,
        calibration,
        attributes,
    )
    return ServingBundle(manifest.id, scorer, sequence, learned, knob, attributes)


def attribute_features(files: Mapping[str, bytes]) -> AttributeFeatures | None:
    """What the ranker of a bundle reads besides what all read; None where it reads nothing else.

    Raises:
        ValueError: The file is not one of ours.
    """
    return AttributeFeatures(FeatureSpec.from_json(files[FEATURES_FILE])) if FEATURES_FILE in files else None


def _ranker(manifest: Manifest, model: str, attributes: AttributeFeatures | None) -> TreeRanker:
    if manifest.feature_names != NAMES + (attributes.spec.names if attributes is not None else ()):
        raise BundleUnusable(f"bundle {manifest.id} was trained by another release; train again")
    return TreeRanker(model)
