"""A factorisation of who chose what, by alternating least squares (Hu, Koren, Volinsky 2008; `implicit`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from threadpoolctl import threadpool_limits

from ranking_service.learned_sources.item_factors import ItemFactors
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.interactions import training_matrix
from zhiyin_offline.evaluation.protocols import Rows
from zhiyin_offline.training.learned_sources.full_ranking import Floats, FullRanking

_FACTORS = 128
# Users and items below which there is nothing to factorise.
_LEAST = 16
_ITERATIONS = 10
_REGULARIZATION = 0.05
_CONFIDENCES = (5.0, 20.0, 60.0)
_DECAYS = (0.4, 0.6, 0.8)


@dataclass(frozen=True, slots=True)
class FactorsRecipe:
    """How to factorise; see `ItemFactors`. `ndcg` was reached by itself, on the cases that chose it."""

    confidence: float
    decay: float
    ndcg: float = 0.0


def search_factors(dataset: Dataset, rows: Rows, judge: FullRanking, seed: int) -> FactorsRecipe | None:
    """The recipe that finds the targets best; None without `implicit`, or where there is too little to factorise."""
    matrix = training_matrix(dataset, rows)
    used = min(np.count_nonzero(matrix.getnnz(axis=0)), np.count_nonzero(matrix.getnnz(axis=1)))
    if find_spec("implicit") is None or used < _LEAST:
        return None
    recipes = []
    for confidence in _CONFIDENCES:
        model = build_factors(dataset, rows, FactorsRecipe(confidence, 1.0), seed)
        for decay in _DECAYS:
            asked = _Asked(dataset, replace(model, decay=decay), judge)
            recipes.append(FactorsRecipe(confidence, decay, judge.ndcg(asked.scores)))
    return max(recipes, key=lambda recipe: recipe.ndcg)


class _Asked:
    """A model asked about the cases of a judge."""

    def __init__(self, dataset: Dataset, model: ItemFactors, judge: FullRanking) -> None:
        self._model, self._items = model, judge.items
        self._columns = np.array([dataset.item_numbers[item_id] for item_id in model.item_ids])
        self._histories = [[dataset.item_ids[int(item)] for item in history] for history in judge.histories]

    def scores(self, part: slice) -> Floats:
        """Of all items; those that the model does not know come last."""
        out = np.full((part.stop - part.start, self._items), -np.inf, np.float32)
        for row, history in enumerate(self._histories[part]):
            found = self._model.scores(history)
            if found is not None:
                out[row, self._columns] = found
        return out


def build_factors(dataset: Dataset, rows: Rows, recipe: FactorsRecipe, seed: int) -> ItemFactors:
    """The factors of all items in these rows."""
    from implicit.cpu.als import AlternatingLeastSquares

    matrix = training_matrix(dataset, rows)
    known = np.flatnonzero(matrix.getnnz(axis=0))
    matrix = matrix[:, known].tocsr()
    # Threads go over users; a BLAS with threads of its own inside each would slow them down.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            # On small data more factors would learn pairs by heart.
            factors=min(_FACTORS, max(min(matrix.shape) // 8, 1)),
            regularization=_REGULARIZATION,
            alpha=recipe.confidence,
            iterations=_ITERATIONS,
            random_state=seed,
            num_threads=1,
        )
        model.fit(matrix, show_progress=False)
    ids = tuple(dataset.item_ids[int(item)] for item in known)
    return ItemFactors(
        ids,
        {item_id: row for row, item_id in enumerate(ids)},
        np.asarray(model.item_factors, np.float32),
        _REGULARIZATION,
        recipe.confidence,
        recipe.decay,
    )
