"""StreamEvents: acknowledgements in order, refused batches, backpressure instead of refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from ranking_service.users.event_stream import acknowledged_in_order
from service_runtime.errors import InvalidRequest, Overloaded, Violation
from tests.ranking_service.user_side_harness import event, opened
from zhiyin.ranking.v1 import ranking_service_pb2 as pb


def batch(number: int, *events: pb.Event, catalog: str = "") -> pb.StreamEventsRequest:
    return pb.StreamEventsRequest(batch_number=number, catalog=catalog, events=events)


async def sent(batches: Iterable[pb.StreamEventsRequest]) -> AsyncIterator[pb.StreamEventsRequest]:
    for one in batches:
        yield one


async def test_every_batch_is_answered_in_order_and_a_refused_one_ends_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        batches = [
            batch(7, event("ann", "LIKE", "a", event_id="e1"), catalog="default"),
            batch(8, event("ann", "RATING", "a"), event("", "LIKE", "b")),
            batch(9, event("ann", "LIKE", "b", event_id="e1")),
            batch(10, event("ann", "LIKE", "a"), catalog="songs"),
            batch(11, event("ann", "LIKE", "c"), catalog="films"),
            batch(12, event("ann", "LIKE", "d")),
        ]
        answers = [a async for a in acknowledged_in_order(sent(batches), ranking.rpcs._record)]
        assert [a.batch_number for a in answers] == [7, 8, 9, 10, 11, 12]
        assert [a.WhichOneof("result") for a in answers] == [
            "recorded",
            "error",
            "error",
            "error",
            "recorded",
            "recorded",
        ]
        assert {v.field for v in answers[1].error.violations} == {"events[0].value", "events[1].user_id"}
        assert [a.error.reason for a in answers[1:4]] == [
            "INVALID_REQUEST",
            "EVENT_ALREADY_EXISTS",
            "CATALOG_NOT_FOUND",
        ]
        assert ranking.side.statistics.event_sequence("films") == 2


async def test_the_first_batch_must_name_a_catalogue() -> None:
    async def never(request: pb.RecordEventsRequest) -> pb.RecordEventsResponse:
        raise AssertionError

    answers = [a async for a in acknowledged_in_order(sent([batch(1)]), never)]
    assert answers[0].error.violations[0].field == "catalog"


async def test_slow_batches_hold_later_answers_back_and_reading_is_bounded() -> None:
    started: list[int] = []
    gate = asyncio.Event()

    async def record(request: pb.RecordEventsRequest) -> pb.RecordEventsResponse:
        number = len(started)
        started.append(number)
        if number == 0:
            await gate.wait()
        return pb.RecordEventsResponse(sequence=number)

    stream = acknowledged_in_order(sent(batch(i, catalog="default") for i in range(50)), record)
    first = asyncio.ensure_future(anext(stream))
    while len(started) < 8:
        await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(started) == 8
    assert not first.done()
    gate.set()
    answers = [await first, *[a async for a in stream]]
    assert [a.recorded.sequence for a in answers] == list(range(50))


async def test_a_full_queue_slows_the_stream_down() -> None:
    refusals = 3

    async def record(request: pb.RecordEventsRequest) -> pb.RecordEventsResponse:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise Overloaded("the write queue of user", 0.001)
        return pb.RecordEventsResponse(sequence=5)

    answers = [a async for a in acknowledged_in_order(sent([batch(1, catalog="default")]), record)]
    assert answers[0].recorded.sequence == 5


async def test_a_bug_ends_the_stream_and_leaves_nothing_running() -> None:
    async def record(request: pb.RecordEventsRequest) -> pb.RecordEventsResponse:
        if request.events[0].user_id == "2":
            raise ZeroDivisionError
        await asyncio.sleep(3600 if request.events[0].user_id == "3" else 0)
        return pb.RecordEventsResponse()

    before = asyncio.all_tasks()
    batches = [batch(i, event(str(i), "LIKE", "a"), catalog="default") for i in range(1, 40)]
    with pytest.raises(ZeroDivisionError):
        async for _ in acknowledged_in_order(sent(batches), record):
            pass
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before


async def test_a_stream_that_breaks_off_ends_with_its_error() -> None:
    async def broken() -> AsyncIterator[pb.StreamEventsRequest]:
        yield batch(1, catalog="default")
        raise InvalidRequest([Violation("x", "y")])

    async def record(request: pb.RecordEventsRequest) -> pb.RecordEventsResponse:
        return pb.RecordEventsResponse(sequence=1)

    stream = acknowledged_in_order(broken(), record)
    assert (await anext(stream)).recorded.sequence == 1
    with pytest.raises(InvalidRequest):
        await anext(stream)
