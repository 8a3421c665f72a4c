"""What must not change figures: other ids, another order of the catalogue, what happens later, hidden items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.zhiyin_offline.evaluation.recorded import generated, purchases, renumbered
from zhiyin_offline.evaluation.baselines.all_baselines import BASELINES, baselines
from zhiyin_offline.evaluation.baselines.popularity import PopularityScorer
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.hidden_items import hide
from zhiyin_offline.evaluation.interactions import training_matrix
from zhiyin_offline.evaluation.methods import Lists, Method, ScoredMethod
from zhiyin_offline.evaluation.metrics.accuracy import accuracy
from zhiyin_offline.evaluation.metrics.significance import mean_and_error
from zhiyin_offline.evaluation.new_users import as_new_users
from zhiyin_offline.evaluation.protocols import Case, Split, leave_one_out, time_split
from zhiyin_offline.evaluation.streaming import RefittedMethod

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
        replace(events, item=item),
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
        replace(events, item=item),
    )  # fmt: skip
    lists = []
    for dataset in (WORLD, changed):
        method = baselines(VECTORS)[name](0)
        method.fit(dataset, split)
        lists.append(method.rank(split.cases, 20))
    assert np.array_equal(lists[0], lists[1])


@pytest.mark.parametrize("known", [0, 2])
def test_of_new_users_nothing_is_learned_and_only_their_latest_events_are_known(known: int) -> None:
    whole = leave_one_out(WORLD)
    split = as_new_users(WORLD, whole, known)
    users = {case.user for case in split.cases}
    assert len(users) == round(0.2 * len(whole.cases))
    assert users.isdisjoint(WORLD.events.user[split.training].tolist())
    before = {case.user: case.history for case in whole.cases}
    for case in split.cases:
        assert case.history.tolist() == before[case.user].tolist()[len(before[case.user]) - known :]
    assert users == {case.user for case in as_new_users(WORLD, whole, 5).cases}


def test_a_streaming_method_learns_what_has_passed_and_nothing_else() -> None:
    learned: list[float] = []

    class Spy(ScoredMethod):
        def fit(self, dataset: Dataset, split: Split) -> None:
            super().fit(dataset, split)
            learned.append(float(dataset.events.time[split.training].max()))

        def rank(self, cases: Sequence[Case], k: int) -> Lists:
            assert min(case.now for case in cases) > learned[-1]
            return super().rank(cases, k)

    method = RefittedMethod(lambda: Spy(PopularityScorer()), fits=4)
    split = time_split(WORLD, streaming=True)
    method.fit(WORLD, split)
    lists = method.rank(split.cases, 5)
    assert np.all(lists >= 0)
    assert len(learned) == 4
    assert learned == sorted(set(learned))
    frozen = time_split(WORLD)
    method.fit(WORLD, frozen)
    once = ScoredMethod(PopularityScorer())
    once.fit(WORLD, frozen)
    assert np.array_equal(method.rank(frozen.cases, 5), once.rank(frozen.cases, 5))


def test_what_is_hidden_stays_hidden_as_time_passes() -> None:
    split = time_split(WORLD, streaming=True)
    assert not hide(WORLD, split, np.array([1], dtype=np.int32)).streaming
    assert not as_new_users(WORLD, split, 1).streaming
