"""`read_record` gives what the stores of a deployment hold, and nothing of those who asked to be forgotten."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest

from ranking_service.service import RankingService
from ranking_service.settings import RankingSettings
from ranking_service.users.event import EventContext
from retrieval_service.item import Item as RetrievalItem
from service_runtime.attributes import from_proto, to_proto
from service_runtime.server import running_server
from tests.retrieval_service.fake_encoder_server import embed
from tests.retrieval_service.retrieval_harness import Retrieval, item, many_items, running_retrieval
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb
from zhiyin_offline.training.store_record import CatalogUnknown, Record, read_record
from zhiyin_offline.upkeep.locations import Locations

LIKE, BUY, RATE, SHOWN = (
    pb.EVENT_TYPE_LIKE,
    pb.EVENT_TYPE_PURCHASE,
    pb.EVENT_TYPE_RATING,
    pb.EVENT_TYPE_IMPRESSION,
)
BEGAN = float(int(time.time()) - 86_400)


@dataclass
class Stack:
    """Both services over one data directory, as `zhiyin up` lays it out."""

    ranking: RankingServiceStub
    retrieval: Retrieval

    async def create(self, catalog: str) -> None:
        request = retrieval_pb.CreateCatalogRequest(catalog=retrieval_pb.Catalog(name=catalog))
        await self.retrieval.stub.CreateCatalog(request, timeout=20)

    async def act(self, user: str, kind: int, item_id: str, at: float, value: float | None = None) -> None:
        event = pb.Event(user_id=user, type=kind, item_id=item_id)
        event.time.FromNanoseconds(int((BEGAN + at) * 1e9))
        if value is not None:
            event.value = value
        await self.ranking.RecordEvents(pb.RecordEventsRequest(catalog="default", events=[event]), timeout=20)


@contextlib.asynccontextmanager
async def running(root: Path) -> AsyncIterator[Stack]:
    async with running_retrieval(root / "retrieval") as retrieval:
        settings = RankingSettings(
            port=0,
            data_dir=root / "ranking",
            retrieval_address=retrieval.address,
            encoder_address=retrieval.address,
            drain_delay_s=0,
            grace_s=1,
        )
        async with (
            running_server(RankingService(settings), settings) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            yield Stack(RankingServiceStub(channel), retrieval)


def told(record: Record) -> list[tuple[str, str, int, float | None, float]]:
    """Events as somebody would tell them: user, item, type, value, seconds after the beginning."""
    dataset, events = record.dataset, record.dataset.events
    return [
        (
            dataset.user_ids[events.user[row]],
            dataset.item_ids[events.item[row]] if events.item[row] >= 0 else "",
            int(events.event_type[row]),
            None if np.isnan(events.value[row]) else float(events.value[row]),
            round(float(events.time[row]) - BEGAN, 3),
        )
        for row in range(len(events))
    ]


async def test_items_vectors_and_events_of_a_stopped_stack_come_as_they_were_written(tmp_path: Path) -> None:
    written = many_items(1_100)  # more than a page of the store
    async with running(tmp_path) as stack:
        for start in range(0, len(written), 550):
            await stack.retrieval.upsert(*written[start : start + 550])
        await stack.retrieval.upsert(item("item-00003", "a new title", text="new words"))
        await stack.retrieval.stub.DeleteItems(
            retrieval_pb.DeleteItemsRequest(catalog="default", item_ids=["item-00005"]), timeout=20
        )
        await stack.create("other")
        await stack.retrieval.upsert(item("elsewhere"), catalog="other")
        await stack.act("ann", BUY, "item-00001", 10, 25.0)
        await stack.act("bo", LIKE, "item-00002", 5)
        await stack.act("ann", RATE, "item-00003", 20, 4.5)
        await stack.act("ann", LIKE, "item-00005", 30)  # deleted since
        await stack.act("ann", LIKE, "never-there", 40)
        await stack.act("bo", SHOWN, "item-00004", 50)
        fingerprint = stack.retrieval.encoder.fingerprint
    record = read_record(Locations(tmp_path), "default")
    expected = {entry.id: entry.title for entry in written if entry.id != "item-00005"} | {"item-00003": "a new title"}
    assert {entry.id: entry.title for entry in record.dataset.items} == expected
    assert record.fingerprint == fingerprint
    for entry, vector in zip(record.dataset.items, record.vectors, strict=True):
        passage = RetrievalItem(entry.id, entry.title, entry.text).passage
        assert np.allclose(vector, embed(passage), atol=2e-3), entry.id
    bo, ann = record.dataset.user_ids[0], record.dataset.user_ids[1]
    if record.dataset.events.user[0] != 0:
        bo, ann = ann, bo
    assert told(record) == [
        (bo, "item-00002", LIKE, None, 5),
        (ann, "item-00001", BUY, 25.0, 10),
        (ann, "item-00003", RATE, 4.5, 20),
        (ann, "", LIKE, None, 30),
        (ann, "", LIKE, None, 40),
        (bo, "", SHOWN, None, 50),
    ]
    assert "ann" not in record.dataset.user_ids  # ids stay in the store
    assert record.dataset.positive.tolist() == [True, True, True, False, False, False]


async def test_attributes_of_users_and_circumstances_of_events_are_read(tmp_path: Path) -> None:
    async with running(tmp_path) as stack:
        await stack.retrieval.upsert(*many_items(5))
        users = [pb.User(id=name, profile="my own words", follows=["bo"]) for name in ("ann", "silent")]
        for user in users:
            to_proto({"city": "rome", "age": 40.0}, user.attributes)
        await stack.ranking.UpsertUsers(pb.UpsertUsersRequest(catalog="default", users=users), timeout=20)
        circumstances = pb.RecommendContext(device="tv", place="home", locale="zh")
        circumstances.time.FromSeconds(int(BEGAN))
        for number, context in enumerate([circumstances, None, circumstances]):
            event = pb.Event(user_id="ann", type=LIKE, item_id=f"item-{number:05d}", context=context)
            event.time.FromNanoseconds(int((BEGAN + number) * 1e9))
            await stack.ranking.RecordEvents(pb.RecordEventsRequest(catalog="default", events=[event]), timeout=20)
        await stack.act("bo", LIKE, "item-00003", 9)
    dataset = read_record(Locations(tmp_path), "default").dataset
    ann = dataset.user_ids[dataset.events.user[0]]
    assert set(dataset.users) == {ann}  # who did nothing teaches nothing
    assert from_proto(dataset.users[ann].attributes) == {"age": 40.0, "city": "rome"}
    assert (dataset.users[ann].profile, list(dataset.users[ann].follows)) == ("", [])
    told = [dataset.events.context_of(row) for row in range(4)]
    assert told == [
        EventContext("zh", None, "tv", "home"),
        EventContext(),
        EventContext("zh", None, "tv", "home"),
        EventContext(),
    ]
    assert len(dataset.events.contexts) == 1
    assert dataset.events.take(np.array([1, 2])).context_of(1) == told[2]


async def test_nothing_is_left_of_an_erased_user(tmp_path: Path) -> None:
    async with running(tmp_path) as stack:
        await stack.retrieval.upsert(*many_items(20))
        for number in range(4):
            await stack.act("gone", LIKE, f"item-{number:05d}", number)
            await stack.act("kept", LIKE, f"item-{number + 10:05d}", number + 0.5)
        await stack.ranking.DeleteUser(pb.DeleteUserRequest(catalog="default", user_id="gone"), timeout=20)
        beside = read_record(Locations(tmp_path), "default")  # the services run
        await stack.act("gone", LIKE, "item-00019", 100)  # who comes back is somebody new
    stopped = read_record(Locations(tmp_path), "default")
    assert {entry[1] for entry in told(beside)} == {f"item-{number + 10:05d}" for number in range(4)}
    assert len(beside.dataset.user_ids) == 1
    assert [entry[1] for entry in told(stopped)][-1] == "item-00019"
    assert len(stopped.dataset.user_ids) == 2
    assert len(told(stopped)) == 5


async def test_a_catalogue_that_is_not_there_or_empty_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as stack:
        await stack.retrieval.upsert(*many_items(3))
        await stack.create("quiet")
        await stack.retrieval.upsert(*many_items(3), catalog="quiet")
        await stack.act("ann", LIKE, "item-00001", 1)
    for catalog in ("nowhere", "quiet"):
        with pytest.raises(CatalogUnknown, match=catalog):
            read_record(Locations(tmp_path), catalog)
    assert len(read_record(Locations(tmp_path), "default").dataset.items) == 3


def test_a_folder_that_no_service_ever_used_is_told_and_left_empty(tmp_path: Path) -> None:
    with pytest.raises(CatalogUnknown, match="typo"):
        read_record(Locations(tmp_path / "typo"), "default")
    assert not (tmp_path / "typo").exists()
