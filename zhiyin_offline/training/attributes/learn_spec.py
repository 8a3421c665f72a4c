"""What a learned ranker is to read of attributes and circumstances, from the events that may be learned from."""

from __future__ import annotations

import numpy as np

from ranking_service.attribute_features.feature_spec import FeatureSpec
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.protocols import Rows
from zhiyin_offline.training.attributes.item_fields import item_fields
from zhiyin_offline.training.attributes.lifts import lifts_of
from zhiyin_offline.training.attributes.sides import known_sides


def learn_spec(dataset: Dataset, learned_from: Rows) -> FeatureSpec:
    """Fields, scales, fills, counts and lifts.

    Args:
        dataset: The record.
        learned_from: Rows of events from before the cases: nothing of a case's target is among them.
    """
    rows = learned_from[dataset.positive[learned_from]]
    chosen = dataset.events.item[rows]
    words, numbers = item_fields(dataset.items, np.bincount(chosen, minlength=len(dataset.items)))
    sides = known_sides(dataset, rows)
    lifts = lifts_of(dataset.items, chosen, sides, words)
    return FeatureSpec(words, numbers, tuple(known.side for known in sides), lifts)
