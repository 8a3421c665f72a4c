"""Items whose words are like those of the latest items in the history."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.interactions import query_matrix
from zhiyin_offline.evaluation.memory_catalog import semantic_space
from zhiyin_offline.evaluation.methods import Scores
from zhiyin_offline.evaluation.protocols import Case, Split


class TextScorer:
    """Score = cosine of the item with the decayed sum of the history, vectors as the text space compares them.

    Args:
        vectors: Raw item vectors, shape (items, dimensions); zeros for items without words.
        decay: Weight of an item by the weight of the item after it.
    """

    name = "text"

    def __init__(self, vectors: NDArray[np.float32], decay: float = 0.6) -> None:
        self._vectors, self._decay = semantic_space(vectors, "").rows, decay

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Learns nothing: the words of items are known before any event."""
        self._dataset = dataset

    def scores(self, cases: Sequence[Case]) -> Scores:
        """One product of queries and items."""
        queries = query_matrix(self._dataset, cases, self._decay) @ self._vectors
        out: Scores = np.asarray(queries, dtype=np.float32) @ self._vectors.T
        return out
