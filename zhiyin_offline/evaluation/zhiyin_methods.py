"""Zhiyin among the methods of an evaluation: trained, untrained, and with its candidates in other orders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ranking_service.candidate import SourceKind
from ranking_service.scorers.features import SOURCES
from zhiyin_offline.evaluation.baselines.all_baselines import MakeMethod
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.methods import Lists
from zhiyin_offline.evaluation.other_orders import OTHER_ORDERS, SINGLE_SOURCES
from zhiyin_offline.evaluation.protocols import Case, Split
from zhiyin_offline.evaluation.report.as_json import SUBJECT
from zhiyin_offline.evaluation.zhiyin_method import ZhiyinMethod
from zhiyin_offline.training.train import Trained


class Reordered:
    """Zhiyin's candidates in another order than its own.

    Args:
        order: Of `OTHER_ORDERS`.
        made: What is like Zhiyin but for the order.
        seed: Of the training.
        ranked: Lists by seed and order, shared by all orders: they come from one pass.
    """

    def __init__(self, order: str, made: ZhiyinMethod, seed: int, ranked: dict[int, dict[str, Lists]]) -> None:
        self._order, self._made, self._seed, self._ranked = order, made, seed, ranked

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{SUBJECT}-{self._order}"

    def fit(self, dataset: Dataset, split: Split) -> None:
        """See `Method`."""
        if self._seed not in self._ranked:
            self._made.fit(dataset, split)

    def rank(self, cases: Sequence[Case], k: int) -> Lists:
        """See `Method`."""
        if self._seed not in self._ranked:
            lists = self._made.rank_by(cases, k, list(OTHER_ORDERS.values()))
            self._ranked[self._seed] = dict(zip(OTHER_ORDERS, lists, strict=True))
        return self._ranked[self._seed][self._order]


def zhiyin_methods(vectors: NDArray[np.float32], fingerprint: str) -> dict[str, MakeMethod]:
    """Every form of Zhiyin by its name in reports, for one evaluation of one split: they share their trainings.

    Args:
        vectors: Raw vector of each item, shape (items, d).
        fingerprint: Of their space.
    """
    trainings: dict[int, Trained | None] = {}
    ranked: dict[int, dict[str, Lists]] = {}

    def trained(seed: int) -> ZhiyinMethod:
        return ZhiyinMethod(vectors, fingerprint, seed, trainings=trainings)

    def by_source(kind: SourceKind) -> MakeMethod:
        return lambda seed: ZhiyinMethod(vectors, fingerprint, seed, only=kind, trainings=trainings)

    def reordered(order: str) -> MakeMethod:
        return lambda seed: Reordered(order, trained(seed), seed, ranked)

    return {
        SUBJECT: trained,
        f"{SUBJECT}-untrained": lambda seed: ZhiyinMethod(vectors, fingerprint, seed, trained=False),
        **{f"{SUBJECT}-{order}": reordered(order) for order in OTHER_ORDERS},
        **{name: by_source(kind) for name, kind in zip(SINGLE_SOURCES, SOURCES, strict=True)},
    }
