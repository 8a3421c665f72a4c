"""Every baseline by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from zhiyin_offline.evaluation.baselines.als import AlsScorer
from zhiyin_offline.evaluation.baselines.ease import EaseScorer
from zhiyin_offline.evaluation.baselines.item_knn import ItemKnnScorer
from zhiyin_offline.evaluation.baselines.popularity import PopularityScorer
from zhiyin_offline.evaluation.baselines.svd import SvdScorer
from zhiyin_offline.evaluation.baselines.text import TextScorer
from zhiyin_offline.evaluation.baselines.user_knn import UserKnnScorer
from zhiyin_offline.evaluation.methods import Method, ScoredMethod, Scorer
from zhiyin_offline.evaluation.similarities import SimilarityName

MakeMethod = Callable[[int], Method]
"""A method by seed."""

_SIMILARITIES: tuple[SimilarityName, ...] = ("cosine", "pearson", "jaccard")
BASELINES = (
    "popularity",
    "text",
    "als",
    "svd",
    "ease",
    *(f"item-knn-{name}" for name in _SIMILARITIES),
    *(f"user-knn-{name}" for name in _SIMILARITIES),
)
"""Their names, in the order of reports."""


def baselines(vectors: NDArray[np.float32]) -> dict[str, MakeMethod]:
    """How to make each; `text` only where items have words.

    Args:
        vectors: Raw item vectors, shape (items, dimensions); zeros for items without words.
    """
    scorers: dict[str, Callable[[int], Scorer]] = {
        "popularity": lambda seed: PopularityScorer(),
        "text": lambda seed: TextScorer(vectors),
        "als": AlsScorer,
        "svd": SvdScorer,
        "ease": lambda seed: EaseScorer(),
    }
    for similarity in _SIMILARITIES:
        scorers[f"item-knn-{similarity}"] = lambda seed, s=similarity: ItemKnnScorer(s)  # type: ignore[misc]
        scorers[f"user-knn-{similarity}"] = lambda seed, s=similarity: UserKnnScorer(s)  # type: ignore[misc]
    if not np.any(vectors):
        del scorers["text"]
    return {name: _scored(scorers[name]) for name in BASELINES if name in scorers}


def _scored(make: Callable[[int], Scorer]) -> MakeMethod:
    return lambda seed: ScoredMethod(make(seed), seed)
