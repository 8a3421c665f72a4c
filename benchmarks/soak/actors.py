"""Who does what in the soak. Every actor runs until it is told to stop, and leaves nothing half done."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from benchmarks.soak.calls import Client
from benchmarks.soak.oracle import ABSENT, Items, Users
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval

R = TypeVar("R")
CATALOG = "default"
_TOPICS = (
    "悬疑电影",
    "意大利菜谱",
    "周末徒步",
    "jazz records",
    "night photography",
    "home baking",
    "量子物理",
    "chess",
)
_WRITE_DEADLINE_S = 60.0
_EVENT_TYPES = (
    ranking.EVENT_TYPE_CLICK,
    ranking.EVENT_TYPE_CLICK,
    ranking.EVENT_TYPE_CLICK,
    ranking.EVENT_TYPE_SKIP,
    ranking.EVENT_TYPE_LIKE,
    ranking.EVENT_TYPE_HIDE,
)
_DONE_AFTER = {ranking.EVENT_TYPE_LIKE, ranking.EVENT_TYPE_HIDE}


@dataclass
class World:
    """What all actors share.

    Attributes:
        client: To call with.
        items: The truth about items.
        users: The truth about users.
        divergences: What was not as it must be.
        stop: Set when it is over.
    """

    client: Client
    items: Items = field(default_factory=Items)
    users: Users = field(default_factory=Users)
    divergences: list[str] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def next_number(self) -> int:
        """A number never given out before: versions and event ids."""
        return next(self._numbers)

    async def pause(self, seconds: float) -> bool:
        """Waits; False when it is over."""
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except TimeoutError:
            return True
        return False

    def diverged(self, what: str) -> None:
        """Notes a divergence."""
        self.divergences.append(what)


def item(name: str, version: int) -> Item:
    """An item that tells its version; its words change with every fourth version only."""
    topic = _TOPICS[hash_of(name) % len(_TOPICS)]
    message = Item(id=name, title=f"{topic} {name}", text=f"edition {version // 4} of {name}", categories=[topic])
    message.attributes["version"].number_value = version
    return message


def hash_of(name: str) -> int:
    """The same in every process."""
    return sum(name.encode())


async def fill(world: World, names: Sequence[str]) -> None:
    """Writes all items once, before anything else."""
    version = world.next_number()
    for start in range(0, len(names), 100):
        chosen = names[start : start + 100]
        with world.items.writing(chosen, version):
            request = retrieval.UpsertItemsRequest(catalog=CATALOG, items=[item(name, version) for name in chosen])
            await world.client.write("UpsertItems", _call(world.client.retrieval.UpsertItems, request))


async def upsert_and_delete(world: World, names: Sequence[str], seed: int, pause_s: float) -> None:
    """Writes batches of its own items, and deletes some now and then."""
    dice = random.Random(seed)
    while await world.pause(pause_s):
        chosen = dice.sample(names, 10)
        if dice.random() < 0.2:
            with world.items.writing(chosen[:5], ABSENT):
                request = retrieval.DeleteItemsRequest(catalog=CATALOG, item_ids=chosen[:5])
                await world.client.write("DeleteItems", _call(world.client.retrieval.DeleteItems, request))
            continue
        version = world.next_number()
        with world.items.writing(chosen, version):
            items = [item(name, version) for name in chosen]
            upsert = retrieval.UpsertItemsRequest(catalog=CATALOG, items=items)
            await world.client.write("UpsertItems", _call(world.client.retrieval.UpsertItems, upsert))


async def import_streams(world: World, names: Sequence[str], seed: int, pause_s: float) -> None:
    """Imports its own items, five batches a stream; a stream that breaks is sent again."""
    dice = random.Random(seed)
    while await world.pause(pause_s):
        chosen, version = dice.sample(names, 100), world.next_number()
        batches = [chosen[i : i + 20] for i in range(0, 100, 20)]

        async def requests(
            batches: Sequence[Sequence[str]] = batches, version: int = version
        ) -> AsyncIterator[retrieval.ImportItemsRequest]:
            for number, batch in enumerate(batches, start=1):
                yield retrieval.ImportItemsRequest(
                    catalog=CATALOG, batch_number=number, items=[item(name, version) for name in batch]
                )

        async def whole_stream(requests: Callable[[], AsyncIterator[retrieval.ImportItemsRequest]] = requests) -> bool:
            written = 0
            async for reply in world.client.retrieval.ImportItems(requests(), timeout=_WRITE_DEADLINE_S):
                written += reply.HasField("written")
            return written == 5

        with world.items.writing(chosen, version):
            while not await world.client.write("ImportItems", whole_stream):
                await world.pause(0.2)


async def act_as_users(world: World, names: Sequence[str], items: Sequence[str], seed: int, pause_s: float) -> None:
    """Records events of its own users, and has one forgotten now and then."""
    dice = random.Random(seed)
    while await world.pause(pause_s):
        name = dice.choice(names)
        user = world.users.of(name)
        user.changing = True
        if dice.random() < 0.02:
            request = ranking.DeleteUserRequest(catalog=CATALOG, user_id=name)
            await world.client.write("DeleteUser", _call(world.client.ranking.DeleteUser, request))
            user.events.clear()
            user.done.clear()
            user.token = ""
        else:
            events = [
                ranking.Event(
                    event_id=f"e{world.next_number()}",
                    user_id=name,
                    item_id=dice.choice(items),
                    type=dice.choice(_EVENT_TYPES),
                )
                for _ in range(5)
            ]
            record = ranking.RecordEventsRequest(catalog=CATALOG, events=events)
            answer = await world.client.write("RecordEvents", _call(world.client.ranking.RecordEvents, record))
            user.events.update(event.event_id for event in events)
            user.done.update(event.item_id for event in events if event.type in _DONE_AFTER)
            user.token = answer.consistency_token
        user.changing = False


async def recommend(world: World, names: Sequence[str], seed: int, pause_s: float) -> None:
    """Asks for lists and looks whether anything is on them that must not be."""
    dice = random.Random(seed)
    while await world.pause(pause_s):
        name = dice.choice(names)
        user = world.users.of(name)
        if user.changing:
            continue
        done, token = set(user.done), user.token
        # Gone before the question: a deletion that is acknowledged meanwhile may come after the list was made.
        absent, before = world.items.absent(), dict(world.items.writes)
        request = ranking.RecommendRequest(catalog=CATALOG, user_id=name, page_size=10, consistency_token=token)
        answer = await world.client.read("Recommend", world.client.ranking.Recommend, request)
        if answer is None or user.changing or user.token != token:
            continue
        shown = [entry.item.id for entry in answer.items]
        if repeated := done.intersection(shown):
            world.diverged(f"{name} was shown {sorted(repeated)} again")
        for item_id in shown:
            if item_id in absent and world.items.writes.get(item_id, 0) == before.get(item_id, 0):
                world.diverged(f"{item_id} was recommended and is deleted")
        if not shown and not any(entry.component.startswith("source:") for entry in answer.degraded):
            world.diverged(f"{name} got an empty list")


async def compare(world: World, items: Sequence[str], users: Sequence[str], seed: int, pause_s: float) -> None:
    """Reads samples and compares them with the truth: items, what searches find, what users did."""
    dice = random.Random(seed)
    while await world.pause(pause_s):
        await _compare_items(world, dice.sample(items, 20))
        await _compare_search(world, dice.choice(items))
        await _compare_user(world, dice.choice(users))


async def _compare_items(world: World, names: Sequence[str]) -> None:
    before, possible = world.items.writes_of(names), {name: set(world.items.possible(name)) for name in names}
    request = retrieval.GetItemsRequest(catalog=CATALOG, item_ids=names)
    answer = await world.client.read("GetItems", world.client.retrieval.GetItems, request)
    if answer is None:
        return
    found = {entry.id: int(entry.attributes["version"].number_value) for entry in answer.items}
    for name in names:
        if world.items.writes_of([name])[name] == before[name] and found.get(name, ABSENT) not in possible[name]:
            world.diverged(f"{name} is {found.get(name, ABSENT)} and must be {possible[name]}")


async def _compare_search(world: World, name: str) -> None:
    """A search over all finds an item at once after it was written, and no more after it was deleted."""
    possible, writes = set(world.items.possible(name)), world.items.writes_of([name])
    if len(possible) != 1:
        return
    (version,) = possible
    passage = item(name, version)
    query = retrieval.SearchQuery(text=passage.title, limit=1000, exact=True)
    request = retrieval.SearchRequest(catalog=CATALOG, queries=[query], read_mask=FieldMask(paths=["id"]))
    answer = await world.client.read("Search", world.client.retrieval.Search, request)
    if answer is None or world.items.writes_of([name]) != writes:
        return
    found = {answer.items[index].id for index in answer.results[0].item_indices}
    if (name in found) != (version != ABSENT):
        world.diverged(f"{name} of version {version} was {'found' if name in found else 'not found'}")


async def _compare_user(world: World, name: str) -> None:
    user = world.users.of(name)
    if user.changing:
        return
    expected, token = set(user.events), user.token
    found = await stored_events(world.client, name)
    if found is not None and not user.changing and user.token == token and found != expected:
        world.diverged(f"{name} has {len(found)} events and must have {len(expected)}")


async def stored_events(client: Client, name: str) -> set[str] | None:
    """Ids of the events that the service has of a user; None where it could not tell."""

    async def export(request: ranking.ExportUserRequest, timeout: float) -> set[str] | None:  # noqa: ASYNC109
        found: set[str] = set()
        async for part in client.ranking.ExportUser(request, timeout=timeout):
            found.update(event.event_id for event in part.events.events)
        return found

    try:
        return await client.read("ExportUser", export, ranking.ExportUserRequest(catalog=CATALOG, user_id=name))
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return set()
        raise


def _call(method: Callable[..., Awaitable[R]], request: Any) -> Callable[[], Awaitable[R]]:
    return lambda: method(request, timeout=_WRITE_DEADLINE_S)
