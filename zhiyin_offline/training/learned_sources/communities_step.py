"""Communities: k-means (Lloyd 1982, seeded by k-means++) over the mean vectors of what users chose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ranking_service.learned_sources.communities import Communities
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.interactions import training_matrix
from zhiyin_offline.evaluation.memory_catalog import Space
from zhiyin_offline.evaluation.protocols import Rows
from zhiyin_offline.training.learned_sources.full_ranking import Floats, FullRanking

_SIZES = (4, 16, 64)
_USERS_OF_A_GROUP = 20
_ROUNDS = 20
_SAMPLE = 50_000
_ITEMS_OF_A_GROUP = 500
_MIN_ITEMS = 2


@dataclass(frozen=True, slots=True)
class CommunitiesRecipe:
    """How many groups. `ndcg` was reached by them alone, on the cases that chose it."""

    groups: int
    ndcg: float = 0.0


def search_communities(
    dataset: Dataset, rows: Rows, semantic: Space, judge: FullRanking, seed: int
) -> CommunitiesRecipe | None:
    """The number of groups that finds the targets best; None without vectors or with few users."""
    recipes = []
    # A history may be empty; its user stands nowhere, and nothing is said to them.
    sums = [semantic.rows[history].sum(axis=0) for history in judge.histories]
    positions = np.stack(sums) if sums else np.zeros((0, 1), np.float32)
    if not positions.any():
        return None
    for groups in _SIZES:
        recipe = CommunitiesRecipe(groups)
        found = build_communities(dataset, rows, semantic, recipe, seed)
        if found is None:
            break
        columns = np.array([dataset.item_numbers[item_id] for item_id in found.item_ids])

        def scores(part: slice, of: Communities = found, columns: NDArray[np.int64] = columns) -> Floats:
            out = np.zeros((part.stop - part.start, judge.items), np.float32)
            for row, position in enumerate(positions[part]):
                said = of.scores(position)
                if said is not None:
                    out[row, columns] = said
            return out

        recipes.append(CommunitiesRecipe(groups, judge.ndcg(scores)))
    return max(recipes, key=lambda recipe: recipe.ndcg, default=None)


def build_communities(
    dataset: Dataset, rows: Rows, semantic: Space, recipe: CommunitiesRecipe, seed: int, *, of_likes: bool = True
) -> Communities | None:
    """The groups and what each likes; None when there are fewer than 20 users a group. `of_likes`: see there."""
    matrix = training_matrix(dataset, rows)
    users = np.flatnonzero(np.diff(matrix.indptr) >= _MIN_ITEMS)
    if len(users) < recipe.groups * _USERS_OF_A_GROUP or not semantic.rows.any():
        return None
    matrix = matrix[users]
    positions = _unit(matrix @ semantic.rows)
    centres = find_groups(positions, recipe.groups, seed)
    group = np.argmax(positions @ centres.T, axis=1)
    members = sp.csr_matrix((np.ones(len(users), np.float32), (group, np.arange(len(users)))))
    members.resize(recipe.groups, len(users))
    likes = (members @ matrix).toarray()
    # Share of the group; the overall popularity stands behind as if it were twenty members, so that small groups
    # with few likes do not speak louder than they know.
    everybody = likes.sum(axis=0) / len(users)
    sizes = np.bincount(group, minlength=recipe.groups)[:, None]
    shares = (likes + 20.0 * everybody) / (sizes + 20.0)
    return _communities(dataset, semantic, centres, shares.astype(np.float32), of_likes)


def find_groups(positions: Floats, count: int, seed: int) -> Floats:
    """Centres of groups of unit vectors by cosine, unit vectors themselves, shape (count, d)."""
    random = np.random.default_rng(seed)
    if len(positions) > _SAMPLE:
        positions = positions[random.choice(len(positions), _SAMPLE, replace=False)]
    centres = np.empty((count, positions.shape[1]), np.float32)
    distances = np.full(len(positions), np.inf)
    for number in range(count):
        total = distances.sum() if number else 0.0
        chances = distances / total if number and total > 0 else None
        centres[number] = positions[random.choice(len(positions), p=chances)]
        distances = np.minimum(distances, np.maximum(1.0 - positions @ centres[number], 0.0)).astype(np.float64)
    group = np.full(len(positions), -1)
    for _ in range(_ROUNDS):
        nearest = np.argmax(positions @ centres.T, axis=1)
        if np.array_equal(nearest, group):
            break
        group = nearest
        members = sp.csr_matrix(
            (np.ones(len(group), np.float32), (group, np.arange(len(group)))), shape=(count, len(group))
        )
        sums = members @ positions
        centres = np.where(sums.any(axis=1, keepdims=True), _unit(sums), centres)
    return centres


def _communities(dataset: Dataset, semantic: Space, centres: Floats, shares: Floats, of_likes: bool) -> Communities:
    items, values, starts = [], [], [0]
    for row in shares:
        best = np.argsort(-row, kind="stable")[:_ITEMS_OF_A_GROUP]
        best = best[row[best] > 1e-6]
        items.append(best)
        values.append(row[best])
        starts.append(starts[-1] + len(best))
    known, renumbered = np.unique(np.concatenate(items), return_inverse=True)
    ids = tuple(dataset.item_ids[int(item)] for item in known)
    mean = semantic.mean if semantic.mean is not None else np.zeros(semantic.rows.shape[1], np.float32)
    return Communities(
        centres,
        mean,
        semantic.fingerprint,
        ids,
        {item_id: row for row, item_id in enumerate(ids)},
        np.array(starts, np.int64),
        renumbered.astype(np.int32),
        np.concatenate(values).astype(np.float32),
        of_likes,
    )


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    out: Floats = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-6)
    return out
