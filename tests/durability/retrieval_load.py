"""A mixed load on retrieval and what its callers were told, to be compared with what a killed service left."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from tests.durability.kill_rounds import ServiceProcess, Strikes, until_killed
from tests.retrieval_service.retrieval_harness import item
from zhiyin.common.v1 import filter_pb2, item_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceStub

UPSERT, IMPORT, DELETE = "upsert", "import", "delete"
BATCH = 8
NUMBERS_PER_CALLER = 24
_COLOURS = 5
_IN_A_STREAM = 3
_GONE = 0
_QUERIES = 32  # of one Search


@dataclass
class Batch:
    """Items that are always written and deleted together.

    Attributes:
        settled: Version that was acknowledged; 0: it is not there.
        tried: Versions that were sent (0: a deletion) and not answered.
        revision: Highest revision of its items that was acknowledged; a deletion does not set it back.
    """

    number: int
    settled: int = _GONE
    tried: list[int] = field(default_factory=list)
    last: int = 0
    revision: int = 0

    def next_version(self) -> int:
        self.last += 1
        return self.last

    def items(self, version: int) -> list[item_pb2.Item]:
        return [
            item(
                f"b{self.number:03d}-{i}",
                f"batch{self.number} version{version} item{i}",
                categories=[f"colour-{version % _COLOURS}"],
                attributes={"version": float(version), "odd": i % 2 == 1},
            )
            for i in range(BATCH)
        ]

    def ids(self) -> list[str]:
        return [f"b{self.number:03d}-{i}" for i in range(BATCH)]


class Load:
    """Callers of one catalogue. Lives through all kills of one data directory."""

    def __init__(self, strikes: Strikes, seed: int) -> None:
        self._strikes = strikes
        self._dice = random.Random(seed)
        self.batches: dict[int, Batch] = {}
        self.sequence = 0
        self.acknowledged = 0
        self.replays: dict[int, tuple[pb.UpsertItemsRequest, pb.UpsertItemsResponse]] = {}

    def start(self, service: ServiceProcess) -> list[asyncio.Task[None]]:
        """Callers that work until the service is gone."""
        stub = RetrievalServiceStub(service.channel)
        turns = [
            lambda: self._upsert(stub, 0),
            lambda: self._upsert(stub, 1),
            lambda: self._delete(stub, 2),
            lambda: self._delete(stub, 3),
            lambda: self._import(stub, 4),
        ]
        return [asyncio.create_task(until_killed(service, turn)) for turn in turns]

    def _batch_of(self, caller: int) -> Batch:
        number = caller * NUMBERS_PER_CALLER + self._dice.randrange(NUMBERS_PER_CALLER)
        return self.batches.setdefault(number, Batch(number))

    async def _upsert(self, stub: RetrievalServiceStub, caller: int) -> None:
        batch = self._batch_of(caller)
        version = batch.next_version()
        request = pb.UpsertItemsRequest(
            catalog="default", items=batch.items(version), request_id=f"{batch.number}/{version}"
        )
        batch.tried.append(version)
        with self._strikes.during(UPSERT):
            response = await stub.UpsertItems(request, timeout=30)
        self._acknowledge(batch, version, response)
        self.replays[caller] = request, response

    async def _delete(self, stub: RetrievalServiceStub, caller: int) -> None:
        batch = self._batch_of(caller)
        version = batch.next_version()
        batch.tried.append(version)
        with self._strikes.during(UPSERT):
            written = await stub.UpsertItems(
                pb.UpsertItemsRequest(catalog="default", items=batch.items(version)), timeout=30
            )
        self._acknowledge(batch, version, written)
        batch.tried.append(_GONE)
        with self._strikes.during(DELETE):
            deleted = await stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=batch.ids()), timeout=30)
        assert deleted.deleted_count == BATCH
        self._acknowledge(batch, _GONE, deleted)

    async def _import(self, stub: RetrievalServiceStub, caller: int) -> None:
        """A stream of two dozen batches, a few of them ahead of the oldest that is not acknowledged."""
        first = caller * NUMBERS_PER_CALLER
        numbers = iter(range(first, first + NUMBERS_PER_CALLER))
        stream = stub.ImportItems(timeout=60)

        async def send_next() -> None:
            number = next(numbers, None)
            if number is None:
                return
            batch = self.batches.setdefault(number, Batch(number))
            version = batch.next_version()
            batch.tried.append(version)
            await stream.write(
                pb.ImportItemsRequest(batch_number=number, catalog="default", items=batch.items(version))
            )

        with self._strikes.during(IMPORT):
            for _ in range(_IN_A_STREAM):
                await send_next()
            for _ in range(NUMBERS_PER_CALLER):
                answer = await stream.read()
                assert isinstance(answer, pb.ImportItemsResponse), "the stream ended before it answered everything"
                assert answer.WhichOneof("result") == "written", answer.error
                batch = self.batches[answer.batch_number]
                self._acknowledge(batch, batch.tried[-1], answer.written)
                await send_next()
            await stream.done_writing()

    def _acknowledge(self, batch: Batch, version: int, answer: pb.UpsertItemsResponse | pb.DeleteItemsResponse) -> None:
        if isinstance(answer, pb.UpsertItemsResponse):
            revision = max(result.revision for result in answer.results)
            assert revision > batch.revision, "a revision was used twice"
            batch.revision = revision
        batch.settled = version
        batch.tried.clear()
        self.sequence = max(self.sequence, answer.sequence)
        self.acknowledged += 1

    # ---- after a restart

    async def check(self, service: ServiceProcess) -> None:
        """What was acknowledged is there, nothing is there by half, and the index answers from what the store holds."""
        stub = RetrievalServiceStub(service.channel)
        items = await self._stored_items(stub)
        self._compare_with_what_was_told(items)
        stats = await stub.GetCatalogStats(pb.GetCatalogStatsRequest(catalog="default"), timeout=20)
        assert stats.item_count == stats.indexed_count == len(items)
        assert stats.sequence == stats.applied_sequence
        assert stats.sequence >= self.sequence, "sequence numbers went back"
        assert not [text for text in stats.notices if "damaged" in text], "a kill left a snapshot that is not whole"
        self.sequence = stats.sequence
        if items:
            await self._compare_index_with_store(stub, items)
        await self._repeat_acknowledged(stub)
        again = await stub.GetCatalogStats(pb.GetCatalogStatsRequest(catalog="default"), timeout=20)
        assert again.sequence == self.sequence, "an acknowledged request that was sent again changed something"

    async def _stored_items(self, stub: RetrievalServiceStub) -> list[item_pb2.Item]:
        listed = await stub.ListItems(pb.ListItemsRequest(catalog="default", page_size=1000), timeout=20)
        assert not listed.next_page_token
        return list(listed.items)

    def _compare_with_what_was_told(self, items: list[item_pb2.Item]) -> None:
        found: dict[int, list[item_pb2.Item]] = {}
        for stored in items:
            found.setdefault(int(stored.id[1:4]), []).append(stored)
        for number, batch in self.batches.items():
            there = found.pop(number, [])
            versions = {int(stored.attributes["version"].number_value) for stored in there}
            assert len(there) in (0, BATCH), f"batch {number} is there by half"
            assert len(versions) <= 1, f"batch {number} is of two writes"
            version = versions.pop() if versions else _GONE
            assert version in (batch.settled, *batch.tried), (
                f"batch {number} is at version {version}: {batch.settled} was acknowledged, {batch.tried} were tried"
            )
            if there:
                revision = min(stored.revision for stored in there)
                assert revision >= batch.revision, "a revision went back"
                batch.revision = revision
            batch.settled, batch.tried = version, []
        assert not found, "there are items that nobody wrote"

    async def _compare_index_with_store(self, stub: RetrievalServiceStub, items: list[item_pb2.Item]) -> None:
        text = "batch version item"
        whole = pb.SearchQuery(name="all", text=text, limit=1000, exact=True)
        colours = [
            pb.SearchQuery(
                name=f"colour-{number}",
                text=text,
                limit=1000,
                exact=True,
                filter=filter_pb2.Filter(
                    field_in=filter_pb2.FieldIn(
                        field="categories", values=[item_pb2.AttributeValue(string_value=f"colour-{number}")]
                    )
                ),
            )
            for number in range(_COLOURS)
        ]
        reply = await stub.Search(pb.SearchRequest(catalog="default", queries=[whole, *colours]), timeout=20)
        for result in reply.results:
            expected = {i.id for i in items if result.name in ("all", *i.categories)}
            assert {reply.items[i].id for i in result.item_indices} == expected, (
                f"index and store differ: {result.name}"
            )
        # Each item is found by its newest text, and its vector is that of this text.
        for start in range(0, len(items), _QUERIES):
            queries = [
                pb.SearchQuery(name=i.id, text=i.title, limit=1, exact=True) for i in items[start : start + _QUERIES]
            ]
            reply = await stub.Search(pb.SearchRequest(catalog="default", queries=queries), timeout=20)
            for result in reply.results:
                assert reply.items[result.item_indices[0]].id == result.name
                assert result.scores[0] > 0.999, "the index holds the vector of an older text"

    async def _repeat_acknowledged(self, stub: RetrievalServiceStub) -> None:
        for request, response in self.replays.values():
            assert await stub.UpsertItems(request, timeout=20) == response
