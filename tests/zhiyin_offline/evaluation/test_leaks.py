"""What must not change figures: other ids, another order of the catalogue, what happens later, hidden items."""

from __future__ import annotations

import numpy as np
import pytest

from tests.zhiyin_offline.evaluation.recorded import generated, purchases, renumbered
from zhiyin_offline.evaluation.baselines.all_baselines import BASELINES, baselines
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.hidden_items import hide
from zhiyin_offline.evaluation.interactions import training_matrix
from zhiyin_offline.evaluation.methods import Method
from zhiyin_offline.evaluation.metrics.accuracy import accuracy
from zhiyin_offline.evaluation.metrics.significance import mean_and_error
from zhiyin_offline.evaluation.protocols import Split, leave_one_out, time_split

WORLD, VECTORS = generated(seed=3, users=250)


def _ndcg(method: Method, dataset: Dataset, split: Split) -> tuple[float, float]:
    method.fit(dataset, split)
    targets = np.array([case.target for case in split.cases], dtype=np.int32)
    values = accuracy(method.rank(split.cases, 20), targets)["ndcg@20"]
    return mean_and_error(values, np.array([case.user for case in split.cases]))


@pytest.mark.parametrize("name", BASELINES)
def test_other_ids_and_another_order_of_the_catalogue_change_no_metric(name: str) -> None:
    before, error = _ndcg(baselines(VECTORS)[name](0), WORLD, leave_one_out(WORLD))
    moved, vectors, _ = renumbered(WORLD, VECTORS, seed=5)
    after, _ = _ndcg(baselines(vectors)[name](0), moved, leave_one_out(moved))
    # The order of equals is drawn anew, and so are the factors that ALS starts from.
    assert after == pytest.approx(before, abs=error if name == "als" else 0.25 * error)


def test_numbers_by_first_appearance_are_worth_nothing() -> None:
    """Items numbered as they appear, and no words: whoever breaks ties by number finds neighbours in time."""
    rng = np.random.default_rng(0)
    rows = [
        (user, int(user + step if step < 5 else user + 5), float(user + step))
        for user in range(200)
        for step in range(6)
    ]
    dataset = purchases([(user, item, time + rng.uniform(0, 0.1)) for user, item, time in rows], 400)
    split = leave_one_out(dataset)
    nobody = [type(case)(case.user, case.target, case.target_row, case.now, case.history[:0]) for case in split.cases]
    method = baselines(np.zeros((400, 4), dtype=np.float32))["item-knn-cosine"](0)
    method.fit(dataset, split)
    # Without a history all scores are equal: what is found is found by luck, 20 of 400.
    found = accuracy(method.rank(nobody, 20), np.array([case.target for case in nobody], dtype=np.int32))["recall@20"]
    assert found.mean() < 0.12


@pytest.mark.parametrize("make", [leave_one_out, time_split])
def test_what_happens_to_targets_and_later_changes_no_model(make: object) -> None:
    """Everything from the targets on is replaced by other items: the rows that are learned from stay as they are."""
    split: Split = make(WORLD)  # type: ignore[operator]
    others = np.setdiff1d(np.arange(len(WORLD.events)), split.training)
    events = WORLD.events
    item = events.item.copy()
    item[others] = (item[others] + 41) % len(WORLD.items)
    changed = Dataset(
        WORLD.items, WORLD.user_ids, WORLD.users,
        type(events)(events.user, item, events.event_type, events.value, events.time, events.strength),
    )  # fmt: skip
    after: Split = make(changed)  # type: ignore[operator]
    assert np.array_equal(after.training, split.training)
    assert (training_matrix(changed, after.training) != training_matrix(WORLD, split.training)).nnz == 0


@pytest.mark.parametrize("name", BASELINES)
def test_hidden_items_are_in_no_statistic(name: str) -> None:
    hidden = np.arange(0, len(WORLD.items), 10, dtype=np.int32)
    split = hide(WORLD, leave_one_out(WORLD), hidden)
    assert not np.isin(WORLD.events.item[split.training], hidden).any()
    for case in split.cases:
        assert not np.isin(WORLD.events.item[case.history], hidden).any()
    matrix = training_matrix(WORLD, split.training)
    assert matrix[:, hidden].nnz == 0
    # What others do with hidden items changes no score of the rest.
    events = WORLD.events
    item = events.item.copy()
    of_hidden = np.isin(item, hidden)
    item[of_hidden] = np.random.default_rng(1).permutation(item[of_hidden])
    changed = Dataset(
        WORLD.items, WORLD.user_ids, WORLD.users,
        type(events)(events.user, item, events.event_type, events.value, events.time, events.strength),
    )  # fmt: skip
    lists = []
    for dataset in (WORLD, changed):
        method = baselines(VECTORS)[name](0)
        method.fit(dataset, split)
        lists.append(method.rank(split.cases, 20))
    assert np.array_equal(lists[0], lists[1])
