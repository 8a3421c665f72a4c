"""Which events are predicted and what may be known before each."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.zhiyin_offline.evaluation.recorded import PURCHASE, RATING, SEARCH, purchases, recorded
from zhiyin_offline.evaluation.protocols import Split, leave_one_out, sample_users, time_split

ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 30).map(float)), min_size=1, max_size=80)


def test_the_last_event_is_the_test_target_and_the_second_last_the_validation_target() -> None:
    dataset = purchases([(0, 3, 1), (0, 1, 2), (0, 2, 3), (0, 4, 4), (1, 1, 5), (1, 2, 6)], 5)
    test, validation = leave_one_out(dataset, "test"), leave_one_out(dataset, "validation")
    assert [(case.user, case.target, case.now, case.history.tolist()) for case in test.cases] == [
        (0, 4, 4.0, [0, 1, 2])
    ]
    assert test.training.tolist() == [0, 1, 2, 4, 5]  # the user with two events gives no case and is learned from
    assert [(case.target, case.history.tolist()) for case in validation.cases] == [(2, [0, 1])]
    assert validation.training.tolist() == [0, 1, 4, 5]


def test_what_is_not_for_an_item_is_no_target_but_is_history() -> None:
    rows = [(0, item, float(item), PURCHASE, None) for item in range(3)]
    rows += [(0, -1, 2.5, SEARCH, None), (0, 4, 5.0, RATING, 1.0), (0, 3, 3.0, RATING, 5.0)]
    (case,) = leave_one_out(recorded(rows, 5)).cases
    assert case.target == 3
    assert case.history.tolist() == [0, 1, 2, 3]
    assert 5 not in leave_one_out(recorded(rows, 5)).training.tolist()  # after the target


def test_a_repeated_target_is_a_case_only_with_history_included() -> None:
    dataset = purchases([(0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 1, 4)], 5)
    without = leave_one_out(dataset)
    assert (len(without.cases), without.dropped) == (0, 1)
    included = leave_one_out(dataset, include_history=True)
    assert (len(included.cases), included.dropped, included.include_history) == (1, 0, True)


def test_an_item_rated_low_is_done_with_too() -> None:
    rows = [(0, item, float(item), PURCHASE, None) for item in range(3)]
    rows += [(0, 4, 4.0, RATING, 1.0), (0, 4, 5.0, RATING, 5.0)]
    assert leave_one_out(recorded(rows, 5)).dropped == 1


def test_the_cuts_of_the_time_split() -> None:
    dataset = purchases([(row % 3, row, float(row)) for row in range(20)], 20)
    test, validation = time_split(dataset, "test"), time_split(dataset, "validation")
    assert [case.target for case in validation.cases] == [16, 17]
    assert validation.training.tolist() == list(range(16))
    assert [case.target for case in test.cases] == [18, 19]
    assert test.training.tolist() == list(range(18))
    assert (test.streaming, time_split(dataset, streaming=True).streaming) == (False, True)


def test_new_users_are_cases_and_equal_times_are_no_history() -> None:
    rows = [(0, item, float(item)) for item in range(18)] + [(1, 18, 50.0), (1, 19, 50.0)]
    split = time_split(purchases(rows, 20))
    assert [(case.user, case.target, len(case.history)) for case in split.cases] == [(1, 18, 0), (1, 19, 0)]


@given(ROWS, st.sampled_from(["validation", "test"]), st.booleans())
def test_nothing_after_the_target_is_known(rows: list[tuple[int, int, float]], part: str, include: bool) -> None:
    dataset = purchases(rows, 10)
    times, users = dataset.events.time, dataset.events.user
    for split in (
        leave_one_out(dataset, part, include_history=include),  # type: ignore[arg-type]
        time_split(dataset, part, include_history=include),  # type: ignore[arg-type]
    ):
        trained = set(split.training.tolist())
        for case in split.cases:
            assert case.now == times[case.target_row]
            assert case.target_row not in trained
            assert np.all(users[case.history] == case.user)
            assert np.all(case.history < case.target_row)
            if split.name.startswith("time"):
                assert np.all(times[case.history] < case.now)
            own_later = [row for row in np.flatnonzero(users == case.user).tolist() if row >= case.target_row]
            assert trained.isdisjoint(own_later)
            if not include:
                assert case.target not in dataset.events.item[case.history]


@given(ROWS)
def test_events_of_one_time_are_on_one_side_of_a_cut(rows: list[tuple[int, int, float]]) -> None:
    dataset = purchases(rows, 10)
    split = time_split(dataset, "test", include_history=True)
    trained = set(dataset.events.time[split.training].tolist())
    assert trained.isdisjoint(case.now for case in split.cases)


def test_an_event_planted_in_the_future_changes_no_training_row() -> None:
    rows = [(user, (user * 3 + step) % 10, float(10 * user + step)) for user in range(5) for step in range(6)]
    # As late as the last event, which is what each user's own last target is before.
    planted = [*rows, (0, 9, 1000.0), (3, 9, 1001.0)]
    before, after = purchases(rows, 10), purchases(planted, 10)

    def known(split: Split) -> set[int]:
        return set(split.training.tolist())

    # Rows before the planted ones keep their numbers. The split by time may only move its cut on, never learn of them.
    assert {30, 31}.isdisjoint(known(leave_one_out(after)))
    assert {30, 31}.isdisjoint(known(time_split(after)))
    others = np.flatnonzero(~np.isin(before.events.user, [0, 3]))
    assert known(leave_one_out(before)) & set(others.tolist()) == known(leave_one_out(after)) & set(others.tolist())


def test_a_sample_keeps_all_cases_of_a_user_and_all_that_is_learned_from() -> None:
    dataset = purchases([(row % 7, row, float(row)) for row in range(70)], 70)
    split = time_split(dataset)
    sample = sample_users(split, 3, seed=1)
    users = {case.user for case in sample.cases}
    assert len(users) == 3
    assert [case for case in split.cases if case.user in users] == list(sample.cases)
    assert sample.training is split.training
