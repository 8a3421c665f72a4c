"""What users alike acted on (user-based collaborative filtering; Resnick et al. 1994)."""

from __future__ import annotations

from collections.abc import Sequence

from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.interactions import query_matrix, training_matrix
from zhiyin_offline.evaluation.methods import Scores
from zhiyin_offline.evaluation.protocols import Case, Split
from zhiyin_offline.evaluation.similarities import SimilarityName, all_pairs, strongest


class UserKnnScorer:
    """Score = sum of the similarities of those neighbours who acted on the item. The user's own past is no neighbour.

    Args:
        similarity: Of users by what they acted on; the asking user's is the history of the case.
        neighbours: Kept of each case.
    """

    def __init__(self, similarity: SimilarityName = "cosine", neighbours: int = 100) -> None:
        self._similarity, self._neighbours = similarity, neighbours
        self.name = f"user-knn-{similarity}"

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Keeps who acted on what."""
        self._dataset = dataset
        self._users = training_matrix(dataset, split.training)

    def scores(self, cases: Sequence[Case]) -> Scores:
        """Neighbours of each case, then what they acted on."""
        similarities = all_pairs(self._similarity, query_matrix(self._dataset, cases), self._users)
        for row, case in enumerate(cases):
            similarities[row, case.user] = 0.0
        out: Scores = (strongest(similarities, self._neighbours) @ self._users).toarray()
        return out
