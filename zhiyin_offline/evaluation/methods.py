"""What is compared: anything that learns from a split and ranks items for its cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.protocols import Case, Split, done_with

Lists = NDArray[np.int32]
"""Item numbers best first, shape (cases, k); -1 where a list is shorter."""
Scores = NDArray[np.float32]

# Scores of one batch: 64 MB for a million items.
_BATCH_SCORES = 16_000_000
_MAX_BATCH = 512


class Method(Protocol):
    """A recommender under evaluation."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Learns from the events of `split.training` alone (and, streaming, from what passes before each case)."""
        ...

    def rank(self, cases: Sequence[Case], k: int) -> Lists:
        """The k best items for each case. What a case knows of its user is its history.

        Items that the user is done with are left out unless the split of `fit` includes history.
        """
        ...


@runtime_checkable
class TellsChances(Protocol):
    """A method that says how likely users are to act on what they are shown."""

    def chances(self) -> dict[str, Any]:
        """After `rank`: how good that is, `in_training` out of fold, and `later` on what was shown after the cut.

        Each as `calibration_step.figures` gives it; empty where the record says too little of what was shown.
        """
        ...


class Scorer(Protocol):
    """The part of most methods that is their own: a number for every item."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Learns from `split.training`."""
        ...

    def scores(self, cases: Sequence[Case]) -> Scores:
        """Shape (cases, items); higher is better. The array is the caller's to change."""
        ...


class ScoredMethod:
    """A method made of a scorer: all items in order of score.

    Items of equal score come in an order drawn by seed. Neither ids nor places in the catalogue decide: catalogues are
    often numbered by first appearance, which would tell who came together with whom.

    Args:
        scorer: Gives the numbers.
        seed: Of the order of equals.
    """

    def __init__(self, scorer: Scorer, seed: int = 0) -> None:
        self._scorer, self._seed = scorer, seed

    @property
    def name(self) -> str:
        """That of the scorer."""
        return self._scorer.name

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Fits the scorer."""
        self._items, self._include_history = dataset.events.item, split.include_history
        self._done = done_with(dataset)
        self._order = np.random.default_rng(self._seed).permutation(len(dataset.items)).astype(np.int32)
        self._scorer.fit(dataset, split)

    def rank(self, cases: Sequence[Case], k: int) -> Lists:
        """All items in order of score, batch by batch."""
        count = len(self._order)
        batch = max(1, min(_MAX_BATCH, _BATCH_SCORES // max(count, 1)))
        out = np.full((len(cases), k), -1, dtype=np.int32)
        for start in range(0, len(cases), batch):
            part = cases[start : start + batch]
            scores = self._scorer.scores(part)
            if not self._include_history:
                for row, case in enumerate(part):
                    scores[row, self._items[case.history[self._done[case.history]]]] = -np.inf
            best = top_k(np.take(scores, self._order, axis=1), k)
            out[start : start + len(part), : best.shape[1]] = np.where(best >= 0, self._order[best], -1)
        return out


def top_k(scores: Scores, k: int) -> Lists:
    """Columns of the k highest scores of each row, highest first, equals by column; -1 for minus infinity.

    Shape (rows, min(k, columns)).
    """
    k = min(k, scores.shape[1])
    if k == 0:
        return np.empty((len(scores), 0), dtype=np.int32)
    out = np.full((len(scores), k), -1, dtype=np.int32)
    least = np.where(np.isfinite(scores), scores, np.inf).min(axis=1)
    for row, (values, floor) in enumerate(zip(scores, least, strict=True)):
        # Most scores of most methods are one value, often 0, and selecting among equals is slow: they are set apart.
        above = np.flatnonzero(values > floor)
        if len(above) > k:
            threshold = np.partition(values[above], -k)[-k]
            above = above[values[above] >= threshold]
        chosen = above[np.argsort(-values[above], kind="stable")][:k]
        if len(chosen) < k:
            chosen = np.concatenate([chosen, np.flatnonzero(values == floor)[: k - len(chosen)]])
        out[row, : len(chosen)] = chosen
    return out
