"""Zhiyin's candidates in other orders: the comparison of ways to be diverse."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from tests.zhiyin_offline.evaluation.recorded import generated
from zhiyin_offline.evaluation.interactions import query_matrix
from zhiyin_offline.evaluation.metrics.variety import calibration, category_matrix, vector_diversity
from zhiyin_offline.evaluation.other_orders import OTHER_FORMS, OTHER_ORDERS, own_order
from zhiyin_offline.evaluation.protocols import leave_one_out, time_split
from zhiyin_offline.evaluation.zhiyin_method import ZhiyinMethod
from zhiyin_offline.evaluation.zhiyin_methods import zhiyin_methods

K = 10


@pytest.fixture(scope="module")
def lists() -> dict[str, np.ndarray]:
    """The lists of each order, untrained; and beside them the world."""
    dataset, vectors = generated(users=80)
    split = leave_one_out(dataset)
    made = ZhiyinMethod(vectors, "test", trained=False)
    made.fit(dataset, split)
    ranked = made.rank_by(split.cases, K, [own_order, *OTHER_ORDERS.values()])
    assert np.array_equal(ranked[0], made.rank(split.cases, K))
    return dict(zip(["own", *OTHER_ORDERS], ranked, strict=True))


def test_no_order_names_an_item_twice_or_loses_one(lists: dict[str, np.ndarray]) -> None:
    for order, of_order in lists.items():
        assert (of_order >= 0).all(), order
        assert all(len(set(row)) == K for row in of_order.tolist()), order


def test_each_order_is_what_it_is_for(lists: dict[str, np.ndarray]) -> None:
    dataset, vectors = generated(users=80)
    split = leave_one_out(dataset)
    categories = category_matrix([list(item.categories) for item in dataset.items])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    varied = {order: float(np.nanmean(vector_diversity(of, unit))) for order, of in lists.items()}
    for order in ("own", "mmr", "dpp", "quota"):
        assert varied[order] > varied["relevance"], order
    for row in lists["quota"].tolist():
        assert max(Counter(dataset.items[number].categories[0] for number in row).values()) <= 3
    histories = query_matrix(dataset, split.cases)
    apart = {order: float(np.nanmean(calibration(of, histories, categories))) for order, of in lists.items()}
    assert apart["calibrated"] == min(apart.values())


def test_all_forms_share_one_training_and_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, vectors = generated(users=60)
    split = leave_one_out(dataset)
    methods = zhiyin_methods(vectors, "test")
    assert set(OTHER_FORMS) < set(methods)
    trained: list[int] = []

    def learned(self: ZhiyinMethod, record: object, split: object) -> None:
        trained.append(self._seed)

    monkeypatch.setattr(ZhiyinMethod, "_learned", learned)
    own = {}
    for name in ("zhiyin", *OTHER_FORMS):
        method = methods[name](0)
        method.fit(dataset, split)
        own[name] = method.rank(split.cases, K)
        assert method.name == name
    assert trained == [0, 0]  # Zhiyin's own lists, and one pass for all other orders
    assert not np.array_equal(own["zhiyin-relevance"], own["zhiyin-quota"])


def test_streaming_every_order_knows_what_passed_and_nothing_else() -> None:
    dataset, vectors = generated(users=60)
    split = time_split(dataset, streaming=True)
    together, alone = (ZhiyinMethod(vectors, "test", trained=False) for _ in range(2))
    together.fit(dataset, split)
    alone.fit(dataset, split)
    both = together.rank_by(split.cases, K, [own_order, OTHER_ORDERS["relevance"]])
    assert np.array_equal(both[0], alone.rank(split.cases, K))
    assert both[1].shape == (len(split.cases), K)
    assert list(islice(iter(OTHER_ORDERS), 1)) == ["relevance"]
