"""LambdaMART over the best candidates of the blend, all of them as negatives: hard ones alone make it collapse."""

from __future__ import annotations

from collections.abc import Sequence

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ranking_service.scorers.learned import reranked
from ranking_service.scorers.tree_ranker import TreeRanker
from zhiyin_offline.training.examples import Example, Floats

DEPTH = 100
"""Candidates that the ranker orders."""

_TREES = 150
_SETTINGS = {
    "objective": "lambdarank",
    "learning_rate": 0.05,
    "num_leaves": 7,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.6,
    "lambda_l2": 10.0,
    "lambdarank_truncation_level": 20,
    "deterministic": True,
    "force_col_wise": True,
    "verbose": -1,
}


def train_ranker(examples: Sequence[Example], weights: Floats, seed: int, threads: int = 1) -> str | None:
    """The model as text; None when fewer than two examples have their target among the best of the blend."""
    rows, labels, groups = [], [], []
    for example in examples:
        blend = example.blend(weights)
        best = best_of(blend)
        if example.target in best:
            rows.append(example.features(best, blend))
            labels.append(best == example.target)
            groups.append(len(best))
    if len(groups) < 2:
        return None
    data = lightgbm.Dataset(np.concatenate(rows), np.concatenate(labels).astype(np.int32), group=groups)
    settings = {**_SETTINGS, "seed": seed, "num_threads": threads}
    return str(lightgbm.train(settings, data, _TREES).model_to_string())


def ranked(example: Example, weights: Floats, ranker: TreeRanker) -> Floats:
    """The relevance that serving gives: the blend with its best ordered by the ranker. Shape (n,)."""
    blend = example.blend(weights)
    best = best_of(blend)
    return reranked(blend, best, ranker.score(example.features(best, blend))) if len(best) else blend


def best_of(blend: Floats) -> NDArray[np.intp]:
    """Rows that the ranker orders, as `LearnedScorer` chooses them."""
    return np.argsort(-blend, kind="stable")[:DEPTH]
