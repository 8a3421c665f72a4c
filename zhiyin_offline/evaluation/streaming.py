"""A method that is fitted anew from time to time, for the streaming form of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.methods import Lists, Method
from zhiyin_offline.evaluation.protocols import Case, Split


class RefittedMethod:
    """Fits a method on all rows before a batch of cases, then ranks the batch; frozen, it fits once.

    Cases are taken by time in batches of equal size. What is learned from for a batch are rows strictly before its
    first case, as a model that is trained every so often would have known them.

    Args:
        make: Makes the method that is fitted.
        fits: Batches, at most.
    """

    def __init__(self, make: Callable[[], Method], fits: int = 5) -> None:
        self._make, self._fits = make, fits
        self.name = make().name

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Fits at once where the split is frozen, else when cases come."""
        self._dataset, self._split = dataset, split
        self._frozen: Method | None = None
        if not split.streaming:
            self._frozen = self._make()
            self._frozen.fit(dataset, split)

    def rank(self, cases: Sequence[Case], k: int) -> Lists:
        """The k best items for each case, by models as old as their batch."""
        if self._frozen is not None:
            return self._frozen.rank(cases, k)
        times = self._dataset.events.time
        out = np.full((len(cases), k), -1, dtype=np.int32)
        by_time = np.argsort([case.now for case in cases], kind="stable")
        for part in np.array_split(by_time, self._fits):
            if len(part):
                batch = [cases[number] for number in part.tolist()]
                method = self._make()
                method.fit(self._dataset, replace(self._split, training=np.flatnonzero(times < batch[0].now)))
                out[part] = method.rank(batch, k)
        return out
