"""Items that the same users acted on (item-based collaborative filtering; Sarwar et al. 2001)."""

from __future__ import annotations

from collections.abc import Sequence

import scipy.sparse as sp

from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.interactions import query_matrix, training_matrix
from zhiyin_offline.evaluation.methods import Scores
from zhiyin_offline.evaluation.protocols import Case, Split
from zhiyin_offline.evaluation.similarities import SimilarityName, all_pairs, strongest

_BLOCK = 512


class ItemKnnScorer:
    """Score = sum of an item's similarity with the items of the history, as far as it is among their neighbours.

    Args:
        similarity: Of items by who acted on them.
        neighbours: Kept of each item.
        decay: Weight of an item of the history by the weight of the item after it.
    """

    def __init__(self, similarity: SimilarityName = "cosine", neighbours: int = 100, decay: float = 0.6) -> None:
        self._similarity, self._neighbours, self._decay = similarity, neighbours, decay
        self.name = f"item-knn-{similarity}"

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Finds every item's neighbours, block by block."""
        self._dataset = dataset
        by_item = training_matrix(dataset, split.training).T.tocsr()
        blocks = []
        for start in range(0, by_item.shape[0], _BLOCK):
            similarities = all_pairs(self._similarity, by_item[start : start + _BLOCK], by_item)
            for row in range(len(similarities)):
                similarities[row, start + row] = 0.0  # an item is no neighbour of itself
            blocks.append(strongest(similarities, self._neighbours))
        self._model = sp.vstack(blocks, format="csr")

    def scores(self, cases: Sequence[Case]) -> Scores:
        """One sparse product."""
        out: Scores = (query_matrix(self._dataset, cases, self._decay) @ self._model).toarray()
        return out
