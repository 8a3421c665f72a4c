"""The packing rule, on any queue: nothing lost, nothing twice, the budget kept, lanes and deadlines in order."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from encoder_service.batch_queue import MAX_PADDING, BatchQueue, Lane, QueuedText, choose

BUDGET = 64
texts = st.builds(
    lambda length, lane, deadline: QueuedText([7] * length, lane, deadline),
    st.integers(1, 100),
    st.sampled_from(Lane),
    st.sampled_from([5.0, 10.0, 20.0, math.inf]),
)


def filled(waiting: list[QueuedText]) -> BatchQueue[QueuedText]:
    queue: BatchQueue[QueuedText] = BatchQueue(BUDGET, 1 << 20)
    for text in waiting:
        queue.add(text)
    return queue


@given(st.lists(texts, max_size=60), st.floats(0, 30))
def test_nothing_is_lost_and_nothing_is_computed_twice(waiting: list[QueuedText], now: float) -> None:
    queue = filled(waiting)
    left: list[QueuedText] = []
    expired: list[QueuedText] = []
    while len(queue):
        taken = queue.take(now)
        assert taken.batch or taken.expired
        left += taken.batch
        expired += taken.expired
    assert sorted(map(id, left + expired)) == sorted(map(id, waiting))
    assert {id(text) for text in expired} == {id(text) for text in waiting if text.deadline <= now}
    assert queue.queued_tokens() == 0
    assert queue.take(now).batch == []


@given(st.lists(texts, min_size=1, max_size=60))
def test_a_batch_keeps_the_budget_and_pads_no_text_far(waiting: list[QueuedText]) -> None:
    queue = filled(waiting)
    while len(queue):
        batch = queue.take(now=0.0).batch
        longest = max(text.tokens for text in batch)
        assert len(batch) == 1 or len(batch) * longest <= BUDGET
        assert all(longest <= max(text.tokens * MAX_PADDING, 8) for text in batch)


@given(st.lists(texts, min_size=1, max_size=60))
def test_the_interactive_lane_goes_first_and_the_most_urgent_text_is_always_in_the_batch(
    waiting: list[QueuedText],
) -> None:
    queue = filled(waiting)
    while len(queue):
        remaining = [text for text in waiting if text.waiting]
        urgent = min(remaining, key=lambda text: (text.lane, text.deadline, text.arrival))
        batch = queue.take(now=0.0).batch
        assert urgent in batch
        assert {text.lane for text in batch} == {urgent.lane}


@given(st.lists(texts, min_size=2, max_size=40), st.data())
def test_a_cancelled_text_leaves_at_once_and_takes_its_tokens_along(
    waiting: list[QueuedText], data: st.DataObject
) -> None:
    queue = filled(waiting)
    gone = data.draw(st.sampled_from(waiting))
    assert queue.remove(gone)
    assert not queue.remove(gone)
    assert queue.queued_tokens() == sum(text.tokens for text in waiting if text is not gone)
    computed = []
    while len(queue):
        computed += queue.take(now=0.0).batch
    assert gone not in computed
    assert len(computed) == len(waiting) - 1


@given(st.lists(texts, min_size=1, max_size=40), st.data(), st.sampled_from(Lane), st.sampled_from([3.0, 15.0, 40.0]))
def test_a_second_caller_only_ever_improves_a_text(
    waiting: list[QueuedText], data: st.DataObject, lane: Lane, deadline: float
) -> None:
    queue = filled(waiting)
    shared = data.draw(st.sampled_from(waiting))
    before = (shared.lane, shared.deadline)
    queue.hasten(shared, lane, deadline)
    assert shared.lane == min(before[0], lane)
    assert shared.deadline == max(before[1], deadline)
    computed = []
    while len(queue):
        computed += queue.take(now=0.0).batch
    assert sorted(map(id, computed)) == sorted(map(id, waiting))


@given(st.lists(st.integers(1, 80), min_size=1, max_size=50), st.data(), st.integers(16, 256))
def test_no_neighbour_that_fits_is_left_out(lengths: list[int], data: st.DataObject, budget: int) -> None:
    lengths.sort()
    urgent = data.draw(st.integers(0, len(lengths) - 1))
    start, end = choose(lengths, urgent, budget)
    assert start <= urgent < end
    count = end - start + 1

    def fits(shortest: int, longest: int) -> bool:
        return count * longest <= budget and longest <= max(shortest * MAX_PADDING, 8)

    assert start == 0 or not fits(lengths[start - 1], lengths[end - 1])
    assert end == len(lengths) or not fits(lengths[start], lengths[end])


def test_equal_lengths_fill_the_budget_exactly() -> None:
    queue = filled([QueuedText([1] * 8, Lane.BULK, math.inf) for _ in range(20)])
    assert [len(queue.take(0.0).batch) for _ in range(3)] == [8, 8, 4]


def test_a_long_text_does_not_make_short_ones_wait_or_pad() -> None:
    short = [QueuedText([1] * 4, Lane.INTERACTIVE, math.inf) for _ in range(3)]
    long = QueuedText([1] * 60, Lane.INTERACTIVE, math.inf)
    queue = filled([short[0], long, *short[1:]])
    assert queue.take(0.0).batch == short
    assert queue.take(0.0).batch == [long]


def test_admission_counts_tokens_and_an_empty_queue_takes_anything() -> None:
    queue: BatchQueue[QueuedText] = BatchQueue(BUDGET, max_queued_tokens=100)
    assert queue.has_room(5000)
    queue.add(QueuedText([1] * 60, Lane.BULK, math.inf))
    assert queue.has_room(40)
    assert not queue.has_room(41)
