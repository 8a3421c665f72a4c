"""Imports of both clients against real services: everything arrives, nothing runs ahead, every refusal is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.zhiyin_client.conftest import Awaited, Services, opened
from tests.zhiyin_client.scripted_server import ScriptedServer
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin_client import (
    Event,
    EventType,
    ImportProgress,
    ImportSettings,
    ImportStopped,
    Item,
    RejectedRow,
    User,
    aio,
    sync,
)

LIKE = EventType.EVENT_TYPE_LIKE
SMALL = ImportSettings(batch_rows=10, in_flight=2)


def items(count: int, bad: tuple[int, ...] = ()) -> Iterator[Item]:
    return (Item(id=f"i{n:04}", title="" if n in bad else f"w{n}") for n in range(count))


async def stored(client: Any) -> list[str]:
    return [item.id async for item in client.list_items(read_mask=["id"], page_size=1000)]


async def test_a_bad_row_is_rejected_alone_and_named(client: Any) -> None:
    heard: list[RejectedRow] = []
    progress = await client.import_items(items(95, bad=(3, 40)), on_rejected=heard.append, settings=SMALL)
    assert (progress.read, progress.accepted, progress.rejected, progress.done) == (95, 93, 2, 95)
    assert sorted(row.ordinal for row in heard) == [4, 41]
    assert all(row.message.id == f"i{row.ordinal - 1:04}" and "title" in row.reason for row in heard)  # type: ignore[union-attr]
    assert progress.rejections == heard
    assert len(await stored(client)) == 93


async def test_a_row_that_no_message_can_carry_is_rejected_before_it_is_sent(client: Any) -> None:
    huge = Item(id="huge", title="w1", text="x" * (20 << 20))
    progress = await client.import_items([*items(3), huge])
    assert (progress.accepted, progress.rejected) == (3, 1)
    assert "bytes" in progress.rejections[0].reason


async def test_rows_are_taken_only_as_fast_as_the_server_takes_them(client: Any) -> None:
    """What is read and not yet resolved never exceeds the batches on their way and the one being filled."""
    told: list[tuple[int, int]] = []

    def note(progress: ImportProgress) -> None:
        told.append((progress.done, progress.read - progress.accepted - progress.rejected))

    await client.import_items(items(300), on_progress=note, settings=SMALL)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) == 30
    assert max(ahead for _, ahead in told) <= (SMALL.in_flight + 1) * SMALL.batch_rows


async def test_the_last_row_of_an_id_wins(client: Any) -> None:
    rows = [Item(id=f"i{n % 7}", title=f"w{n}") for n in range(60)]
    await client.import_items(rows, settings=SMALL)
    assert {item.id: item.title for item in await client.get_items([f"i{n}" for n in range(7)])} == {
        row.id: row.title for row in rows
    }


async def test_an_import_goes_on_after_a_restart(client: Any, services: Services) -> None:
    loop = asyncio.get_running_loop()
    underway = asyncio.Event()

    def note(progress: ImportProgress) -> None:
        if progress.accepted >= 100:
            loop.call_soon_threadsafe(underway.set)

    importing = asyncio.create_task(client.import_items(items(2000), on_progress=note, settings=SMALL))
    await underway.wait()
    assert not importing.done()
    await services.retrieval.restart()
    progress = await importing
    assert (progress.accepted, progress.rejected) == (2000, 0)
    assert len(await stored(client)) == 2000


async def test_rows_that_come_slowly_outlast_the_patience_of_a_stream(client: Any) -> None:
    """The services of these tests end a stream after a second of silence."""

    def slowly() -> Iterator[Item]:
        yield from items(20)
        time.sleep(1.5)
        yield from (Item(id=f"late{n}", title="w1") for n in range(20))

    async def slowly_awaited() -> AsyncIterator[Item]:
        for item in items(20):
            yield item
        await asyncio.sleep(1.5)
        for n in range(20):
            yield Item(id=f"late{n}", title="w1")

    rows = slowly() if isinstance(client, Awaited) else slowly_awaited()
    progress = await client.import_items(rows, settings=SMALL)
    assert progress.accepted == 40
    assert len(await stored(client)) == 40


async def test_events_count_once_and_a_session_sees_them(client: Any) -> None:
    await client.upsert_items(list(items(30)))
    session = client.session()
    events = [Event(event_id=f"e{n}", user_id="ada", type=LIKE, item_id=f"i{n:04}") for n in range(20)]
    first = await session.import_events(events, settings=SMALL)
    assert (first.accepted, first.known_before) == (20, 0)
    assert session.written.consistency_token
    again = await session.import_events(iter(events), settings=SMALL)
    assert (again.accepted, again.known_before) == (20, 20)
    nameless = await session.import_events(Event(user_id="ada", type=LIKE, item_id="i0000") for _ in range(25))
    assert (nameless.accepted, nameless.known_before) == (25, 0)
    assert (await session.get_user("ada")).event_count == 45
    liked = {event.item_id for event in events}
    assert not liked & {entry.item.id for entry in (await session.recommend("ada", page_size=50)).items}


async def test_users_go_through_beside_a_bad_one(client: Any) -> None:
    users = [User(id=f"u{n}", profile="x" * 9000 if n == 4 else "w1") for n in range(25)]
    progress = await client.import_users(users, settings=SMALL)
    assert (progress.accepted, [row.message.id for row in progress.rejections]) == (24, ["u4"])  # type: ignore[union-attr]
    assert (await client.get_user("u24")).profile == "w1"


@pytest.mark.parametrize(
    "start",
    [
        lambda client: client.import_items(items(5)),
        lambda client: client.import_events([Event(user_id="ada", type=LIKE, item_id="a")]),
        lambda client: client.import_users([User(id="ada")]),
    ],
    ids=["items", "events", "users"],
)
async def test_a_fault_that_no_row_is_to_blame_for_stops_the_import(client: Any, start: Callable[[Any], Any]) -> None:
    with pytest.raises(ImportStopped, match="CATALOG_NOT_FOUND"):
        await start(client.in_catalog("no-such"))


async def test_a_server_that_never_answers_ends_the_import(
    kind: str, script: ScriptedServer, scripted_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (aio.batch_streams, sync.batch_streams):
        monkeypatch.setattr(module, "STREAM_DEADLINE_S", 0.3)
    limits = retrieval.GetLimitsResponse(max_items_per_batch=10, max_message_bytes=1 << 20)
    script.replies["GetLimits"] = limits.SerializeToString()
    script.refuses_streams = grpc.StatusCode.UNAVAILABLE
    script.hanging.add("ImportItems")
    async with opened(kind, scripted_address) as client:
        with pytest.raises(ImportStopped, match="DEADLINE_EXCEEDED"):
            await client.import_items(items(3))
    assert len(script.of("ImportItems")) == 1


async def test_an_import_outlasts_the_deadline_of_its_stream(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (aio.batch_streams, sync.batch_streams):
        monkeypatch.setattr(module, "STREAM_DEADLINE_S", 0.5)

    def steadily() -> Iterator[Item]:
        for item in items(200):
            yield item
            time.sleep(0.01)

    progress = await client.import_items(steadily(), settings=SMALL)
    assert (progress.accepted, progress.rejected) == (200, 0)
    assert len(await stored(client)) == 200


async def test_patience_has_an_end(kind: str, script: ScriptedServer, scripted_address: str) -> None:
    """A server that tells its limits and then serves no import."""
    limits = retrieval.GetLimitsResponse(max_items_per_batch=10, max_message_bytes=1 << 20)
    script.replies["GetLimits"] = limits.SerializeToString()
    script.refuses_streams = grpc.StatusCode.UNAVAILABLE
    settings = ImportSettings(patience_s=0.3)
    async with opened(kind, scripted_address) as client:
        with pytest.raises(ImportStopped, match="nothing was accepted"):
            await client.import_items(items(3), settings=settings)
    assert len(script.of("ImportItems")) > 1
