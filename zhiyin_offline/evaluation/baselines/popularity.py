"""The items that most users acted on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.interactions import training_matrix
from zhiyin_offline.evaluation.methods import Scores
from zhiyin_offline.evaluation.protocols import Case, Split


class PopularityScorer:
    """Score = users who acted positively on the item, the same for everybody."""

    name = "popularity"

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Counts."""
        matrix = training_matrix(dataset, split.training)
        self._users = np.asarray(matrix.sum(axis=0), dtype=np.float32).ravel()

    def scores(self, cases: Sequence[Case]) -> Scores:
        """The counts once a case."""
        return np.tile(self._users, (len(cases), 1))
