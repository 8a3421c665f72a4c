"""Other ways to order the same candidates, to compare diversity with: each keeps the scores and changes the places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ranking_service.diversity.knob import diverse_order, unit_scale
from ranking_service.query import DEFAULT_DIVERSITY, DiversityMethod
from ranking_service.scorers.features import SOURCES
from ranking_service.selectors.slate import Slate
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.in_process import served_rows
from zhiyin_offline.evaluation.metrics.variety import divergence
from zhiyin_offline.evaluation.report.as_json import SUBJECT

Order = Callable[[Slate, Dataset], Iterator[int]]
"""Rows of a slate in another order than its own."""

_PLACES = 20
_QUOTA = 3
# Weight of calibration against relevance.
_CALIBRATION = 0.5


def own_order(slate: Slate, dataset: Dataset) -> Iterator[int]:
    """As the service serves it."""
    return served_rows(slate)


def by_method(method: DiversityMethod) -> Order:
    """Another method at the default of the knob."""

    def order(slate: Slate, dataset: Dataset) -> Iterator[int]:
        scores, vectors = slate.scores.total[: slate.main], slate.likeness()
        return diverse_order(scores, vectors, DEFAULT_DIVERSITY, method, slate.taste.knob)

    return order


def by_quota(slate: Slate, dataset: Dataset) -> Iterator[int]:
    """By relevance, with at most three items of one first category; what is over comes after everything else."""
    counts: Counter[str] = Counter()
    late = []
    for row in range(slate.main):
        first = next(iter(slate.items[row].categories), "")
        counts[first] += 1
        if first and counts[first] > _QUOTA:
            late.append(row)
        else:
            yield row
    yield from late


def calibrated(slate: Slate, dataset: Dataset) -> Iterator[int]:
    """Towards the user's own mix of categories (Steck 2018): greedily the largest `relevance - divergence`.

    The divergence is KL(p || .99 q + .01 p), `p` of the items the user liked, weighed as the service weighs them, and
    `q` of the places so far. Users whose items have no categories get the order of relevance.
    """
    shares = [_shares(list(item.categories)) for item in slate.items[: slate.main]]
    liked: Counter[str] = Counter()
    for anchor in slate.taste.likes:
        number = dataset.item_numbers.get(anchor.item_id)
        if number is not None:
            for category, share in _shares(list(dataset.items[number].categories)).items():
                liked[category] += share * anchor.weight  # type: ignore[assignment]
    total = sum(liked.values())
    if total <= 0:
        yield from range(slate.main)
        return
    columns = {category: place for place, category in enumerate(liked)}
    wanted = np.array([liked[category] / total for category in columns])
    table = np.zeros((slate.main, len(columns)))
    for row, of_row in enumerate(shares):
        for category, share in of_row.items():
            if category in columns:
                table[row, columns[category]] = share
    relevance = unit_scale(slate.scores.total[: slate.main]).astype(np.float64)
    shown = np.zeros(len(columns))
    left = np.ones(slate.main, bool)
    for place in range(min(_PLACES, slate.main)):
        gains = (1 - _CALIBRATION) * relevance - _CALIBRATION * divergence(wanted, (shown + table) / (place + 1))
        row = int(np.argmax(np.where(left, gains, -np.inf)))
        left[row] = False
        shown += table[row]
        yield row
    yield from np.flatnonzero(left).tolist()


OTHER_ORDERS: Mapping[str, Order] = {
    "relevance": by_method(DiversityMethod.NONE),
    "mmr": by_method(DiversityMethod.MMR),
    "dpp": by_method(DiversityMethod.DPP),
    "quota": by_quota,
    "calibrated": calibrated,
}
"""By what they are called in reports, behind `zhiyin-`."""
SINGLE_SOURCES = tuple(f"{SUBJECT}-only-{kind.name.lower()}" for kind in SOURCES)
"""Lists by one source alone, one for each of `SOURCES`."""
OTHER_FORMS = tuple(f"{SUBJECT}-{order}" for order in OTHER_ORDERS)


def _shares(categories: list[str]) -> dict[str, float]:
    names = dict.fromkeys(categories)
    return {name: 1.0 / len(names) for name in names}
