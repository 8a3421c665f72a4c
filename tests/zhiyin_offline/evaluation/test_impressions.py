"""What became of what was shown, and what users were like when it was shown to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin_offline.evaluation.dataset import Dataset, EventRows
from zhiyin_offline.evaluation.impressions import impressions, known_outcomes, moments
from zhiyin_offline.evaluation.protocols import leave_one_out

SHOWN, CLICK, LIKE, SKIP, SEARCH = (
    pb.EVENT_TYPE_IMPRESSION,
    pb.EVENT_TYPE_CLICK,
    pb.EVENT_TYPE_LIKE,
    pb.EVENT_TYPE_SKIP,
    pb.EVENT_TYPE_SEARCH,
)
DAY, MINUTE = 86_400.0, 60.0
LATER = 30 * DAY


def record(*rows: tuple[int, int, str, float], end: float = LATER) -> Dataset:
    """User, type, item, time; and one more event at the end by somebody else, so that all windows are over."""
    items = tuple(Item(id=f"i{number}") for number in range(5))
    made = EventRows({item.id: number for number, item in enumerate(items)})
    for user, kind, item, time in (*rows, (9, CLICK, "i4", end)):
        made.add(user, item, kind, None, time)
    return Dataset(items, tuple(f"u{user}" for user in range(10)), {}, made.events())


def outcomes(dataset: Dataset) -> list[tuple[int, int, float, bool]]:
    shown = impressions(dataset)
    return list(zip(shown.user.tolist(), shown.item.tolist(), shown.time.tolist(), shown.acted.tolist(), strict=True))


def test_impressions_are_no_interactions() -> None:
    dataset = record((0, SHOWN, "i1", 0.0), (0, SHOWN, "unknown", 1.0), (0, SEARCH, "", 2.0))
    assert dataset.events.item.tolist() == [-1, -1, -1, 4]
    assert dataset.events.shown.tolist() == [1, -1, -1, -1]
    assert dataset.positive.tolist() == [False, False, False, True]
    assert len(leave_one_out(dataset).cases) == 0


def test_who_acts_within_a_day_acted_and_nobody_else() -> None:
    dataset = record(
        (0, SHOWN, "i0", 0.0),
        (0, SHOWN, "i1", 0.0),
        (0, SHOWN, "i2", 0.0),
        (0, SHOWN, "i3", 0.0),
        (1, SHOWN, "i0", 0.0),
        (0, CLICK, "i0", DAY - 1),
        (0, CLICK, "i1", DAY),  # a moment too late
        (0, SKIP, "i2", 5.0),  # says something against it
    )
    assert outcomes(dataset) == [(0, 0, 0.0, True), *((0, n, 0.0, False) for n in (1, 2, 3)), (1, 0, 0.0, False)]


def test_an_act_belongs_to_the_latest_impression_of_the_item() -> None:
    dataset = record(
        (0, LIKE, "i1", 50.0),
        (0, SHOWN, "i1", 100.0),
        (0, SHOWN, "i1", 200.0),
        (0, CLICK, "i1", 200.0),  # at the very time of the impression: it came of it
        (0, SHOWN, "i1", 300.0),
    )
    assert outcomes(dataset) == [(0, 1, 100.0, False), (0, 1, 200.0, True), (0, 1, 300.0, False)]


def test_an_impression_that_is_recorded_twice_is_one() -> None:
    dataset = record((0, SHOWN, "i1", 100.0), (0, SHOWN, "i1", 100.0), (0, CLICK, "i1", 130.0))
    assert outcomes(dataset) == [(0, 1, 100.0, True)]


def test_what_the_record_ends_too_early_for_is_left_out_acted_on_or_not() -> None:
    rows = ((0, SHOWN, "i1", 100.0), (0, CLICK, "i1", 130.0), (1, SHOWN, "i1", 100.0))
    assert outcomes(record(*rows, end=DAY + 99.0)) == []
    assert len(outcomes(record(*rows, end=DAY + 100.0))) == 2


def test_a_moment_holds_one_list_and_what_its_user_had_done_before() -> None:
    dataset = record(
        (0, LIKE, "i0", 10.0),
        (0, SHOWN, "i1", 100.0),
        (0, SHOWN, "i2", 100.0),
        (1, LIKE, "i2", 105.0),
        (0, SHOWN, "i3", 110.0),
        (0, CLICK, "i2", 120.0),
        (0, SHOWN, "i4", 130.0),  # the click is in between
        (0, SHOWN, "i0", 130.0 + 11 * MINUTE),  # too much later
        (1, SHOWN, "i0", 90.0),
    )
    found = moments(dataset, impressions(dataset), [0, 1])
    told: Sequence[tuple[int, float, list[int], list[bool], list[float]]] = [
        (
            moment.case.user,
            moment.case.now,
            moment.items.tolist(),
            moment.acted.tolist(),
            dataset.events.time[moment.case.history].tolist(),
        )
        for moment in found
    ]
    assert told == [
        (1, 90.0, [0], [False], []),
        (0, 100.0, [1, 2, 3], [False, True, False], [10.0]),
        (0, 130.0, [4], [False], [10.0, 120.0]),
        (0, 130.0 + 11 * MINUTE, [0], [False], [10.0, 120.0]),
    ]


def test_what_happens_at_the_time_of_a_list_is_not_known_to_it() -> None:
    dataset = record((0, SHOWN, "i1", 100.0), (0, CLICK, "i2", 100.0), (0, CLICK, "i3", 99.0))
    (moment,) = moments(dataset, impressions(dataset), [0])
    assert dataset.events.item[moment.case.history].tolist() == [3]


def test_what_is_held_out_makes_no_impression_look_passed_over() -> None:
    dataset = record(
        *((0, LIKE, f"i{n}", float(n)) for n in range(3)),
        (0, SHOWN, "i4", 3.0),
        (0, SHOWN, "i3", 10 * DAY),
        (0, SHOWN, "i4", 10 * DAY),
        (0, LIKE, "i3", 10 * DAY + 5),
        (1, SHOWN, "i3", 10 * DAY),
    )
    split = leave_one_out(dataset)
    assert [case.target for case in split.cases] == [3]
    kept = Dataset(dataset.items, dataset.user_ids, {}, known_outcomes(dataset, split.training))
    assert len(kept.events) == len(split.training)
    # Both impressions of the list whose outcome is held out are gone: the one acted on, and the one passed over.
    assert outcomes(kept) == [(0, 4, 3.0, False), (1, 3, 10 * DAY, False)]
    whole = np.arange(len(dataset.events))
    assert np.array_equal(known_outcomes(dataset, whole).shown, dataset.events.shown)
