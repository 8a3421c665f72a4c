"""Every baseline by name."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from zhiyin_offline.evaluation.baselines.als import AlsScorer
from zhiyin_offline.evaluation.baselines.ease import EaseScorer
from zhiyin_offline.evaluation.baselines.item_knn import ItemKnnScorer
from zhiyin_offline.evaluation.baselines.popularity import PopularityScorer
from zhiyin_offline.evaluation.baselines.svd import SvdScorer
from zhiyin_offline.evaluation.baselines.text import TextScorer
from zhiyin_offline.evaluation.baselines.user_knn import UserKnnScorer
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.methods import Method, ScoredMethod, Scorer, Scores
from zhiyin_offline.evaluation.protocols import Case, Split
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
    methods: dict[str, MakeMethod] = {
        "popularity": _seedless(PopularityScorer),
        "text": _seedless(lambda: TextScorer(vectors)),
        "als": lambda seed: ScoredMethod(AlsScorer(seed), seed),
        "svd": _seedless(SvdScorer),
        "ease": _seedless(EaseScorer),
    }
    for similarity in _SIMILARITIES:
        methods[f"item-knn-{similarity}"] = _seedless(partial(ItemKnnScorer, similarity))
        methods[f"user-knn-{similarity}"] = _seedless(partial(UserKnnScorer, similarity))
    if not np.any(vectors):
        del methods["text"]
    return {name: methods[name] for name in BASELINES if name in methods}


class _FittedOnce:
    """A scorer that is fitted again only for another split."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._fitted_for: tuple[Dataset, Split] | None = None

    @property
    def name(self) -> str:
        return self._scorer.name

    def fit(self, dataset: Dataset, split: Split) -> None:
        if self._fitted_for is None or self._fitted_for[0] is not dataset or self._fitted_for[1] is not split:
            self._scorer.fit(dataset, split)
            self._fitted_for = dataset, split

    def scores(self, cases: Sequence[Case]) -> Scores:
        return self._scorer.scores(cases)


def _seedless(make: Callable[[], Scorer]) -> MakeMethod:
    """Where the seed only orders equals: the methods of all seeds share one scorer for as long as one of them lives."""
    shared: weakref.ref[_FittedOnce] | None = None

    def method(seed: int) -> Method:
        nonlocal shared
        scorer = shared() if shared is not None else None
        if scorer is None:
            scorer = _FittedOnce(make())
            shared = weakref.ref(scorer)
        return ScoredMethod(scorer, seed)

    return method
