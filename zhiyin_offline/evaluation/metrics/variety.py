"""What lists are like apart from being right: diverse, novel, unexpected, calibrated; and what all of them show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from zhiyin_offline.evaluation.methods import Lists

Values = NDArray[np.float64]
_BATCH = 512
_CALIBRATION_SMOOTHING = 0.01
_MAX_CATEGORIES = 16
"""Of one item; further ones say little and would cost much."""


@dataclass(frozen=True)
class Background:
    """What lists are judged against.

    Attributes:
        vectors: Item vectors as the text space compares them, length 1 or zeros, shape (items, dimensions).
        categories: Which item is in which category, ones, shape (items, categories).
        item_users: Users who acted positively on each item in training, shape (items,).
        user_count: Users with events in training.
        histories: What each case's user acted on, ones, shape (cases, items).
        expected: The lists that popularity alone would show, shape (cases, k or more).
    """

    vectors: NDArray[np.float32]
    categories: sp.csr_matrix
    item_users: NDArray[np.float32]
    user_count: int
    histories: sp.csr_matrix
    expected: Lists


def variety(lists: Lists, targets: NDArray[np.int32], background: Background, k: int = 10) -> dict[str, Values]:
    """Every such metric of every case, shape (cases,); NaN where a list or its history has nothing to judge by."""
    lists = lists[:, :k]
    percentile = popularity_percentiles(background.item_users)
    return {
        f"diversity@{k}": vector_diversity(lists, background.vectors),
        f"categories@{k}": distinct_categories(lists, background.categories),
        f"category_diversity@{k}": category_diversity(lists, background.categories),
        f"novelty@{k}": _mean_of_items(lists, self_information(background.item_users, background.user_count)),
        f"serendipity@{k}": serendipity(lists, targets, background.expected[:, :k]),
        f"popularity@{k}": _mean_of_items(lists, percentile),
        f"calibration_kl@{k}": calibration(lists, background.histories, background.categories),
    }


def exposure(lists: Lists, item_count: int, k: int = 10) -> dict[str, float]:
    """What all lists show together: share of the catalogue, and how unevenly (Gini: 0 all alike, 1 one item only)."""
    shown = lists[:, :k]
    counts = np.bincount(shown[shown >= 0], minlength=item_count).astype(np.float64)
    return {f"coverage@{k}": float(np.count_nonzero(counts)) / max(item_count, 1), f"gini@{k}": gini(counts)}


def gini(amounts: Values) -> float:
    """Gini coefficient of amounts >= 0; 0 for none."""
    total, count = float(amounts.sum()), len(amounts)
    if total == 0:
        return 0.0
    ranks = np.arange(1, count + 1)
    return float(((2 * ranks - count - 1) * np.sort(amounts)).sum() / (count * total))


def vector_diversity(lists: Lists, vectors: NDArray[np.float32]) -> Values:
    """1 - mean cosine of all pairs of a list. Items without a vector are left out; NaN below two items."""
    has_vector = np.any(vectors != 0, axis=1)
    out = np.full(len(lists), np.nan)
    for rows in _batches(len(lists)):
        part = lists[rows]
        counted = (part >= 0) & has_vector[np.maximum(part, 0)]
        members = np.where(counted[..., None], vectors[np.maximum(part, 0)], 0.0)
        count = counted.sum(axis=1)
        total = members.sum(axis=1, dtype=np.float64)
        # |sum of v|^2 = sum of |v|^2 + twice the sum over pairs, and every |v| is 1.
        twice_pairs = (total**2).sum(axis=1) - count
        enough = count >= 2
        out[rows] = np.where(enough, 1 - twice_pairs / np.where(enough, count * (count - 1), 1), np.nan)
    return out


def distinct_categories(lists: Lists, categories: sp.csr_matrix) -> Values:
    """How many different categories a list's items have; NaN where they have none."""
    present = _membership(lists, categories.shape[0]) @ categories
    counts = np.diff(present.tocsr().indptr).astype(np.float64)
    return np.where(counts > 0, counts, np.nan)


def category_diversity(lists: Lists, categories: sp.csr_matrix) -> Values:
    """1 - mean Jaccard similarity of the categories of all pairs of a list; items without categories are left out."""
    table = _padded(categories)
    sizes = (table >= 0).sum(axis=1)
    out = np.full(len(lists), np.nan)
    upper = np.triu_indices(lists.shape[1], 1)
    for rows in _batches(len(lists), 64):
        part = lists[rows]
        size = np.where(part >= 0, sizes[np.maximum(part, 0)], 0)
        words = table[np.maximum(part, 0)]
        first, second = words[:, upper[0]], words[:, upper[1]]
        shared = ((first[..., :, None] == second[..., None, :]) & (first >= 0)[..., None]).sum(axis=(-1, -2))
        size_a, size_b = size[:, upper[0]], size[:, upper[1]]
        counted = (size_a > 0) & (size_b > 0)
        alike = np.where(counted, shared / np.maximum(size_a + size_b - shared, 1), 0.0).sum(axis=1)
        pairs = counted.sum(axis=1)
        out[rows] = np.where(pairs > 0, 1 - alike / np.maximum(pairs, 1), np.nan)
    return out


def self_information(item_users: NDArray[np.float32], user_count: int) -> Values:
    """-log2 of the chance that a user acted on the item, in bits; one more user is assumed, so that it stays finite."""
    out: Values = -np.log2((item_users.astype(np.float64) + 1) / (user_count + 1))
    return out


def popularity_percentiles(item_users: NDArray[np.float32]) -> Values:
    """Share of the catalogue that is less popular than the item, items of the same popularity counting half."""
    ordered = np.sort(item_users)
    below = np.searchsorted(ordered, item_users, side="left")
    up_to = np.searchsorted(ordered, item_users, side="right")
    out: Values = (below + up_to) / (2.0 * max(len(item_users), 1))
    return out


def serendipity(lists: Lists, targets: NDArray[np.int32], expected: Lists) -> Values:
    """1 where a list has its target and popularity alone would not have shown it (Ge, Delgado, Jannach 2010)."""
    hit = (lists == targets[:, None]).any(axis=1)
    unexpected: NDArray[np.bool_] = ~(expected == targets[:, None]).any(axis=1)
    out: Values = (hit & unexpected).astype(np.float64)
    return out


def calibration(lists: Lists, histories: sp.csr_matrix, categories: sp.csr_matrix) -> Values:
    """Kullback-Leibler divergence of the list's categories from the history's, in nats (Steck 2018): 0 is calibrated.

    KL(p || (1 - a) q + a p), p of the history and q of the list, a = 0.01; an item spreads 1 evenly over its
    categories. NaN where either has no category.
    """
    shares = _rows_to_one(categories.astype(np.float64))
    p = _rows_to_one(histories.astype(np.float64) @ shares)
    q = _rows_to_one(_membership(lists, categories.shape[0]) @ shares)
    out = np.full(len(lists), np.nan)
    for rows in _batches(len(lists)):
        wanted, shown = p[rows].toarray(), q[rows].toarray()
        judged = (wanted.sum(axis=1) > 0) & (shown.sum(axis=1) > 0)
        out[rows] = np.where(judged, divergence(wanted, shown), np.nan)
    return out


def divergence(wanted: Values, shown: Values) -> Values:
    """KL(p || (1 - a) q + a p) of each row, p `wanted` and q `shown`, a = 0.01; shape (n,).

    Args:
        wanted: Shares of categories, shape (n, categories), or (categories,) for all rows.
        shown: Likewise, shape (n, categories).
    """
    a = _CALIBRATION_SMOOTHING
    smoothed = (1 - a) * shown + a * wanted
    p = np.broadcast_to(wanted, smoothed.shape)
    ratio = np.divide(p, smoothed, out=np.ones_like(smoothed), where=p > 0)
    out: Values = (p * np.log(ratio)).sum(axis=1)
    return out


def category_matrix(categories: Sequence[Sequence[str]]) -> sp.csr_matrix:
    """Items' categories as ones, shape (items, categories)."""
    numbers: dict[str, int] = {}
    columns = [numbers.setdefault(word, len(numbers)) for words in categories for word in dict.fromkeys(words)]
    bounds = np.cumsum([0, *(len(dict.fromkeys(words)) for words in categories)])
    return sp.csr_matrix((np.ones(len(columns)), columns, bounds), shape=(len(categories), max(len(numbers), 1)))


def _mean_of_items(lists: Lists, of_item: Values) -> Values:
    listed = lists >= 0
    count = listed.sum(axis=1)
    total = np.where(listed, of_item[np.maximum(lists, 0)], 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _membership(lists: Lists, item_count: int) -> sp.csr_matrix:
    listed = lists >= 0
    bounds = np.concatenate([[0], np.cumsum(listed.sum(axis=1))])
    return sp.csr_matrix((np.ones(int(bounds[-1])), lists[listed], bounds), shape=(len(lists), item_count))


def _rows_to_one(matrix: sp.csr_matrix) -> sp.csr_matrix:
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    return sp.diags_array(np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)).tocsr() @ matrix


def _padded(categories: sp.csr_matrix) -> NDArray[np.int32]:
    """Category numbers of each item, -1 behind, shape (items, most categories of an item)."""
    counts = np.diff(categories.indptr)
    width = int(min(max(counts.max(initial=1), 1), _MAX_CATEGORIES))
    out = np.full((categories.shape[0], width), -1, dtype=np.int32)
    place = np.arange(len(categories.indices)) - np.repeat(categories.indptr[:-1], counts)
    kept = place < width
    out[np.repeat(np.arange(len(counts)), counts)[kept], place[kept]] = categories.indices[kept]
    return out


def _batches(count: int, size: int = _BATCH) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
