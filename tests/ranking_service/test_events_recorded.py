"""RecordEvents: what is accepted, what is a repeat, what is refused, and what the next read sees."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from service_runtime.errors import AlreadyExists, InvalidRequest, NotFound
from tests.ranking_service.user_side_harness import SIGNER, Opened, event, opened
from zhiyin.ranking.v1 import ranking_service_pb2 as pb


def fields(error: pytest.ExceptionInfo[InvalidRequest]) -> set[str]:
    return {violation.field for violation in error.value.violations}


async def test_an_event_shows_in_the_next_read_and_in_every_statistic(tmp_path: Path) -> None:
    now = time.time()
    async with opened(tmp_path) as ranking:
        answer = await ranking.record(
            event("ann", "FINISH", "film-1", now - 20),
            event("ann", "LIKE", "film-2", now - 10),
            event("bob", "CLICK", "film-1", now - 10),
        )
        assert (answer.recorded_count, answer.duplicate_count, answer.sequence) == (3, 0, 3)
        ann = await ranking.side.reader.read("default", "ann", answer.consistency_token)
        assert ann.known
        assert [(i.item_id, i.event_type) for i in ann.recent] == [
            ("film-1", pb.EVENT_TYPE_FINISH),
            ("film-2", pb.EVENT_TYPE_LIKE),
        ]
        assert ann.seen == {"film-1", "film-2"}
        statistics = ranking.side.statistics
        assert [item for item, _ in statistics.popular("default", now, 10)] == ["film-1", "film-2"]
        assert [item for item, _ in statistics.transitions("default", {"film-1": 1.0}, 10)] == ["film-2"]
        assert statistics.event_sequence("default") == 3


async def test_a_warm_user_changes_without_being_read_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        await ranking.record(event("ann", "LIKE", "a"))
        await ranking.side.reader.read("default", "ann")
        ranking.side._store.close()
        ranking.side._store.read_state = None  # type: ignore[method-assign,assignment]  # a read would fail
        token = (await ranking.record(event("ann", "HIDE", "b"))).consistency_token
        ann = await ranking.side.reader.read("default", "ann", token)
        assert [i.item_id for i in ann.recent] == ["a", "b"]
        assert ann.hidden == {"b"}


async def test_the_same_event_again_is_counted_and_not_recorded(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        liked = event("ann", "LIKE", "a", event_id="e1")  # without a time: the server's clock is not its content
        first = await ranking.record(liked)
        await asyncio.sleep(0.002)
        again = await ranking.record(liked, event("ann", "SAVE", "a", event_id="e2"), liked)
        assert (first.recorded_count, again.recorded_count, again.duplicate_count) == (1, 1, 2)
        assert (await ranking.user("ann")).event_count == 2
        only_known = await ranking.record(liked)
        assert (only_known.recorded_count, only_known.sequence) == (0, 2)


@pytest.mark.parametrize(
    "changed",
    [
        event("bob", "LIKE", "a", 1e9, event_id="e1"),
        event("ann", "SAVE", "a", 1e9, event_id="e1"),
        event("ann", "LIKE", "b", 1e9, event_id="e1"),
        event("ann", "LIKE", "a", 1e9 + 1, event_id="e1"),
        event("ann", "LIKE", "a", event_id="e1"),
        event("ann", "LIKE", "a", 1e9, value=0.0, event_id="e1"),
        event("ann", "LIKE", "a", 1e9, event_id="e1", session_id="s"),
        event("ann", "LIKE", "a", 1e9, event_id="e1", context=pb.RecommendContext(device="tv")),
    ],
)
async def test_the_same_id_with_other_content_refuses_the_whole_request(tmp_path: Path, changed: pb.Event) -> None:
    async with opened(tmp_path) as ranking:
        await ranking.record(event("ann", "LIKE", "a", 1e9, event_id="e1"))
        with pytest.raises(AlreadyExists, match="e1"):
            await ranking.record(event("ann", "LIKE", "c", event_id="e2"), changed)
        assert (await ranking.user("ann")).event_count == 1


async def test_two_contents_under_one_id_in_one_request_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        with pytest.raises(AlreadyExists):
            await ranking.record(event("a", "LIKE", "x", event_id="e"), event("a", "LIKE", "y", event_id="e"))


async def test_ids_are_made_for_events_without_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        await ranking.record(event("ann", "PURCHASE", "a", 1e9), event("ann", "PURCHASE", "a", 1e9))
        assert (await ranking.user("ann")).event_count == 2
        exported = (await ranking.export("ann"))[1].events.events
        assert len({e.event_id for e in exported}) == 2


async def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        with pytest.raises(InvalidRequest) as error:
            await ranking.record(
                event("", "LIKE", "a"),
                event("ann", "LIKE"),
                event("ann", "RATING", "a"),
                event("ann", "RATING", "a", value=9),
                event("ann", "VIEW", "a", value=float("nan")),
                event("ann", "SEARCH", "a"),
                event("ann", "UNSPECIFIED", "a"),
                event("ann", "LIKE", "a", time.time() + 90_000),
                event("ann", "LIKE", "a\n", event_id="x" * 129, session_id="y" * 129),
                event("ann", "COMMENT", "a", text="啊" * 1_366),
                event("ann", "LIKE", "a", attribution_token="forged"),
                event("ann", "LIKE", "a", context=pb.RecommendContext(device="d" * 65)),
                pb.Event(user_id="ann", type=99, item_id="a"),  # type: ignore[arg-type]
                catalog="Not A Name",
            )
        assert fields(error) == {
            "catalog",
            "events[0].user_id",
            "events[1].item_id",
            "events[2].value",
            "events[3].value",
            "events[4].value",
            "events[5].item_id",
            "events[5].text",
            "events[6].type",
            "events[7].time",
            "events[8].item_id",
            "events[8].event_id",
            "events[8].session_id",
            "events[9].text",
            "events[10].attribution_token",
            "events[11].context.device",
            "events[12].type",
        }


async def test_batches_have_a_size(tmp_path: Path) -> None:
    async with opened(tmp_path, max_events_per_batch=2) as ranking:
        with pytest.raises(InvalidRequest, match="at least 1"):
            await ranking.record()
        with pytest.raises(InvalidRequest, match="at most 2"):
            await ranking.record(*[event("ann", "LIKE", "a")] * 3)


async def test_the_first_and_last_years_of_the_calendar(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        ancient = event("ann", "LIKE", "old")
        ancient.time.seconds = -62_135_596_800  # year 1
        await ranking.record(ancient, event("ann", "LIKE", "new"))
        last = event("ann", "LIKE", "last")
        last.time.seconds = 253_402_300_799  # year 9999
        with pytest.raises(InvalidRequest, match="ahead"):
            await ranking.record(last)
        beyond = event("ann", "LIKE", "beyond")
        beyond.time.seconds = 253_402_300_800
        with pytest.raises(InvalidRequest, match="9999"):
            await ranking.record(beyond)
        ann = await ranking.side.reader.read("default", "ann")
        assert [i.item_id for i in ann.recent] == ["old", "new"]
        assert [item for item, _ in ranking.side.statistics.popular("default", time.time(), 9)] == ["new"]
        exported = (await ranking.export("ann"))[1].events.events
        assert exported[0].time.seconds == -62_135_596_800


async def test_an_attribution_token_must_be_of_this_item(tmp_path: Path) -> None:
    token = SIGNER.sign("attribution", {"c": "default", "i": "a", "l": "list-7", "r": 1})
    async with opened(tmp_path) as ranking:
        await ranking.record(event("ann", "CLICK", "a", attribution_token=token))
        with pytest.raises(InvalidRequest) as error:
            await ranking.record(event("ann", "CLICK", "b", attribution_token=token))
        assert fields(error) == {"events[0].attribution_token"}
        other_kind = SIGNER.sign("page", {"c": "default", "i": "a", "l": "list-7"})
        with pytest.raises(InvalidRequest):
            await ranking.record(event("ann", "CLICK", "a", attribution_token=other_kind))
        events, _ = ranking.side._store.read_events(1, "ann", None, 10)
        assert [(e.list_id, e.attribution_token) for e in events] == [("list-7", token)]


async def test_retrieval_is_asked_about_unknown_catalogues_only(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        await ranking.record(event("ann", "LIKE", "a"))
        assert ranking.retrieval.asked == []
        with pytest.raises(NotFound, match="songs"):
            await ranking.record(event("ann", "LIKE", "a"), catalog="songs")
        for _ in range(2):
            answer = await ranking.record(event("ann", "LIKE", "a"), catalog="films")
        assert ranking.retrieval.asked == ["songs", "films"]
        assert answer.sequence == 2
        await ranking.side.require_catalog("films")
        with pytest.raises(NotFound):
            await ranking.side.require_catalog("songs")
    async with opened(tmp_path) as ranking:
        ranking.retrieval.catalogs.clear()  # retrieval is down or has dropped it: events keep coming in
        await ranking.record(event("ann", "LIKE", "b"), catalog="films")
        assert ranking.retrieval.asked == []
        assert ranking.side.statistics.event_sequence("films") == 3


async def test_many_writers_at_once_lose_nothing_and_share_one_sequence(tmp_path: Path) -> None:
    async def write(ranking: Opened, writer: int) -> list[int]:
        sequences = []
        for i in range(20):
            shared = event("shared", "LIKE", f"item-{i}", 1e9, event_id=f"shared-{i}")
            answer = await ranking.record(shared, event(f"user-{writer}", "LIKE", f"item-{i}", 1e9 + i))
            sequences.append(answer.sequence)
        return sequences

    async with opened(tmp_path) as ranking:
        sequences = await asyncio.gather(*(write(ranking, writer) for writer in range(8)))
        assert all(own == sorted(set(own)) for own in sequences)
        assert ranking.side.statistics.event_sequence("default") == 8 * 20 + 20
        assert (await ranking.user("shared")).event_count == 20
        users = [await ranking.side.reader.read("default", f"user-{writer}") for writer in range(8)]
        assert all([i.item_id for i in user.recent] == [f"item-{i}" for i in range(20)] for user in users)
