"""The item-to-item table: EASE (Steck 2019) where its dense matrix fits, else shrunk cosines, the best 200 a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from ranking_service.learned_sources.item_table import ItemTable
from zhiyin_offline.evaluation.baselines.ease import ease_model
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.interactions import training_matrix
from zhiyin_offline.evaluation.protocols import Rows
from zhiyin_offline.training.learned_sources.full_ranking import Floats, FullRanking

MOST_ITEMS = 20_000
"""Items of a dense model; its matrix then takes 1.6 GB."""

_SEARCHED_ITEMS = 5_000
_ROW = 200
_REGULARIZATIONS = (30.0, 100.0, 300.0, 1000.0)
_DECAYS = (0.6, 0.75, 0.85, 0.95)
_SHRINKAGE = 5.0
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class TableRecipe:
    """How to make a table.

    Attributes:
        regularization: Of EASE; None: cosines.
        decay: See `ItemTable`.
        ndcg: That it reached by itself, on the cases that chose it.
    """

    regularization: float | None
    decay: float
    ndcg: float = 0.0


def search_table(dataset: Dataset, rows: Rows, judge: FullRanking) -> TableRecipe | None:
    """The recipe that finds the targets best; None when nobody acted on two items.

    The regularisation is searched on the 5,000 items that most users acted on: a model of all takes minutes.
    """
    matrix = training_matrix(dataset, rows)
    if not _pairs_in(matrix):
        return None
    recipes: list[TableRecipe] = []
    dense = np.count_nonzero(matrix.getnnz(axis=0)) <= MOST_ITEMS
    for regularization in _REGULARIZATIONS if dense else (None,):
        model = _model(matrix, regularization, _SEARCHED_ITEMS)
        for decay in _DECAYS:
            queries = judge.queries(decay)
            ndcg = judge.ndcg(lambda part, q=queries, m=model: (q[part] @ m).toarray())  # type: ignore[misc]
            recipes.append(TableRecipe(regularization, decay, ndcg))
    return max(recipes, key=lambda recipe: recipe.ndcg)


def build_table(dataset: Dataset, rows: Rows, recipe: TableRecipe) -> ItemTable:
    """The table of all items in these rows."""
    model = _model(training_matrix(dataset, rows), recipe.regularization, MOST_ITEMS)
    known = np.flatnonzero(np.diff(model.indptr) + model.getnnz(axis=0))
    model = model[known][:, known].tocsr()
    ids = tuple(dataset.item_ids[int(item)] for item in known)
    return ItemTable(
        ids,
        {item_id: row for row, item_id in enumerate(ids)},
        model.indptr.astype(np.int64),
        model.indices.astype(np.int32),
        model.data.astype(np.float32),
        recipe.decay,
    )


def _model(matrix: sp.csr_matrix, regularization: float | None, most_items: int) -> sp.csr_matrix:
    """Shape (items, items), the best of each row; rows of items beyond the most popular ones are empty in EASE."""
    if regularization is None:
        return _cosines(matrix)
    users = np.asarray(matrix.sum(axis=0)).ravel()
    acted_on = np.flatnonzero(users)
    known = np.sort(acted_on[np.argsort(-users[acted_on], kind="stable")[:most_items]])
    model = ease_model(matrix[:, known], regularization)
    blocks = [_best(model[start : start + _BLOCK]) for start in range(0, len(known), _BLOCK)]
    best = sp.vstack(blocks).tocoo()
    shape = (matrix.shape[1], matrix.shape[1])
    return sp.csr_matrix((best.data, (known[best.row], known[best.col])), shape=shape)


def _cosines(matrix: sp.csr_matrix) -> sp.csr_matrix:
    by_item = matrix.T.tocsr()
    lengths = np.sqrt(np.diff(by_item.indptr) + _SHRINKAGE).astype(np.float32)
    blocks = []
    for start in range(0, by_item.shape[0], _BLOCK):
        shared = (by_item[start : start + _BLOCK] @ matrix).toarray()
        shared /= lengths[start : start + _BLOCK, None] * lengths
        np.fill_diagonal(shared[:, start:], 0.0)
        blocks.append(_best(shared))
    return sp.vstack(blocks).tocsr()


def _best(rows: Floats) -> sp.csr_matrix:
    """The largest positive values of each row."""
    if rows.shape[1] > _ROW:
        least = -np.partition(-rows, _ROW - 1, axis=1)[:, _ROW - 1 : _ROW]
        rows = np.where(rows >= least, rows, 0.0)
    # Below this a half float has no precision left, and nothing is said.
    return sp.csr_matrix(np.where(rows > 1e-4, rows, 0.0).astype(np.float32))


def _pairs_in(matrix: sp.csr_matrix) -> bool:
    return bool(matrix.shape[0]) and bool(np.diff(matrix.indptr).max(initial=0) > 1)
