"""The door: bounded inside and outside, in order, early refusals, hints that a crowd can follow."""

from __future__ import annotations

import asyncio
import heapq
import random

import pytest

from service_runtime.admission import Crowd, Door
from service_runtime.errors import Overloaded


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def _measured_door(clock: Clock, at_once: int = 2, interval_s: float = 0.1, max_wait_s: float = 0.35) -> Door:
    """A full door that has seen calls end every `interval_s`."""
    door = Door("the room", at_once, max_wait_s, clock)
    for _ in range(at_once):
        await door.enter(60)
    for _ in range(30):
        clock.now += interval_s
        door.leave(0.2)
        await door.enter(60)
    return door


async def test_no_more_are_inside_than_may_be_and_the_others_come_in_order() -> None:
    door = Door("the room", 2, 60.0)
    order: list[int] = []

    async def call(i: int) -> None:
        await door.enter(60)
        assert door.inside <= 2
        order.append(i)
        await asyncio.sleep(0)
        door.leave(0.0)

    await asyncio.gather(*(call(i) for i in range(20)))
    assert order == list(range(20))
    assert (door.inside, door.waiting) == (0, 0)


async def test_the_queue_is_as_long_as_can_be_served_in_the_longest_wait() -> None:
    clock = Clock()
    door = await _measured_door(clock)
    waiting = [asyncio.create_task(door.enter(60)) for _ in range(4)]
    await asyncio.sleep(0)
    assert door.waiting == 4
    with pytest.raises(Overloaded) as refused:
        await door.enter(60)
    assert refused.value.retry_after_s > 0
    for _ in range(6):
        door.leave(0.2)
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert (door.inside, door.waiting) == (0, 0)


async def test_what_its_deadline_does_not_allow_is_refused_before_it_waits() -> None:
    clock = Clock()
    door = await _measured_door(clock)
    with pytest.raises(Overloaded):
        await door.enter(0.1)  # two inside share 0.1 s a call: 0.2 s
    assert door.waiting == 0


async def test_one_whose_time_ran_out_in_the_queue_is_not_served() -> None:
    clock = Clock()
    door = await _measured_door(clock)
    late = asyncio.create_task(door.enter(0.5))
    await asyncio.sleep(0)
    clock.now += 0.45
    door.leave(0.2)
    with pytest.raises(Overloaded):
        await late
    assert door.inside == 1


async def test_when_nobody_gets_in_for_long_the_real_wait_counts() -> None:
    """The estimate says a tenth of a second; whoever waits has waited for a whole one."""
    clock = Clock()
    door = await _measured_door(clock)
    stuck = asyncio.create_task(door.enter(60))
    await asyncio.sleep(0)
    assert door.refusal() is None
    clock.now += 1.0
    assert door.refusal() is not None
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)
    assert door.waiting == 0


async def test_callers_who_leave_give_their_place_to_the_next() -> None:
    door = Door("the room", 1, 60.0)
    await door.enter(60)
    gone, next_one = asyncio.create_task(door.enter(60)), asyncio.create_task(door.enter(60))
    await asyncio.sleep(0)
    gone.cancel()
    door.leave(0.2)
    await next_one
    assert (door.inside, door.waiting) == (1, 0)
    # One that leaves at the very moment it is let in.
    both = asyncio.create_task(door.enter(60)), asyncio.create_task(door.enter(60))
    await asyncio.sleep(0)
    door.leave(0.2)
    both[0].cancel()
    await asyncio.gather(*both, return_exceptions=True)
    assert (door.inside, door.waiting) == (1, 0)


async def test_a_call_that_waits_for_somebody_else_keeps_nobody_out_and_is_the_first_to_return() -> None:
    door = Door("the room", 1, 60.0)
    await door.enter(60)
    helped = asyncio.Event()

    async def asks_a_neighbour() -> None:
        async with door.outside():
            await helped.wait()

    returns = asyncio.create_task(asks_a_neighbour())
    await asyncio.sleep(0)
    await asyncio.wait_for(door.enter(60), 1)
    waiting = asyncio.create_task(door.enter(60))
    await asyncio.sleep(0)
    helped.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert (door.inside, door.waiting) == (1, 2)
    door.leave(0.1)
    await returns
    assert (door.inside, door.waiting, waiting.done()) == (1, 1, False)
    door.leave(0.1)
    await waiting
    assert (door.inside, door.waiting) == (1, 0)


async def test_a_call_that_ends_while_it_waits_to_return_leaves_no_place_behind() -> None:
    door = Door("the room", 1, 60.0)

    async def asks_a_neighbour() -> None:
        await door.enter(60)
        try:
            async with door.outside():
                await asyncio.sleep(0)
        finally:
            door.leave(0.1)

    gone = asyncio.create_task(asks_a_neighbour())
    await asyncio.sleep(0)
    await door.enter(60)
    for _ in range(3):
        await asyncio.sleep(0)
    assert (door.inside, door.waiting) == (1, 1)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert (door.inside, door.waiting) == (1, 0)
    door.leave(0.1)
    assert (door.inside, door.waiting) == (0, 0)


def test_a_crowd_that_waits_as_told_comes_back_at_the_rate_that_can_be_served() -> None:
    """500 callers at a server for 100 a second: soon it is asked at most twice and a half as often as it can answer."""
    clock, draw = Clock(), random.Random(3)
    crowd = Crowd(clock, lambda: draw.uniform(0.75, 1.25))
    due = [(clock.now + draw.random(), i) for i in range(500)]
    heapq.heapify(due)
    free_at, asked, served, start = clock.now, 0, 0, clock.now
    while due and (moment := due[0][0]) < start + 30:
        clock.now, caller = moment, heapq.heappop(due)[1]
        counted = moment > start + 10
        asked += counted
        if clock.now >= free_at:
            free_at = clock.now + 0.01
            served += counted
            heapq.heappush(due, (clock.now + 0.01, caller))
        else:
            heapq.heappush(due, (clock.now + crowd.refuse("it", 0.0, 0.01).retry_after_s, caller))
    assert served / 20 >= 50
    assert asked / 20 <= 250
