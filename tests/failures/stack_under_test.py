"""Real retrieval and ranking on real sockets, with links in between that fail as told, and the calls users make."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ranking_service.service import RankingService
from ranking_service.settings import RankingSettings
from retrieval_service.service import RetrievalService
from retrieval_service.settings import RetrievalSettings
from service_runtime.server import Service, running_server
from service_runtime.settings import ServerSettings
from tests.failures.faulty_link import FaultyLink, faulty_link
from tests.failures.service_processes import ServiceProcess, service_processes
from tests.retrieval_service.fake_encoder_server import DIMENSIONS, FakeEncoder, running_fake_encoder
from tests.retrieval_service.retrieval_harness import many_items
from zhiyin.common.v1 import embedding_pb2
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceStub
from zhiyin_client import client_channel_options

# Far enough apart that a busy machine does not take one for the other.
ENCODER_TIMEOUT_S = 1.0
RETRIEVAL_TIMEOUT_S = 2.2
DEADLINE_S = 4.0
ITEMS = 24

_fresh = itertools.count()
_starting = asyncio.Lock()
Call = Callable[[], Awaitable[Any]]


@dataclass
class StackUnderTest:
    """A catalogue of 24 items, a user whom everything is known about, and the calls of the table.

    Attributes:
        folder: Of the data directories `retrieval` and `ranking`.
        retrieval_address: Of the service itself, not of the link before it.
        ranking_address: Of the service.
        dimensions: Of the encoder's vectors.
        links: What stands before `encoder` and `retrieval`.
        flaps: Names of services that said NOT_SERVING, once for each time.
    """

    folder: Path
    retrieval_address: str
    ranking_address: str
    dimensions: int = DIMENSIONS
    links: dict[str, FaultyLink] = field(default_factory=dict)
    flaps: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def client(self, retries: bool = False) -> AsyncIterator[Client]:
        """Somebody who calls; with the shipped retry config, or without any retry."""
        options = client_channel_options() if retries else [("grpc.enable_retries", 0)]
        async with (
            grpc.aio.insecure_channel(self.retrieval_address, options) as to_retrieval,
            grpc.aio.insecure_channel(self.ranking_address, options) as to_ranking,
        ):
            yield Client(RetrievalServiceStub(to_retrieval), RankingServiceStub(to_ranking), self.dimensions)


@dataclass(frozen=True)
class Client:
    """Stubs, and the calls of the table."""

    retrieval: RetrievalServiceStub
    ranking: RankingServiceStub
    dimensions: int

    def calls(self, deadline_s: float = DEADLINE_S) -> dict[str, Call]:
        """By name. Each makes a request that nobody has made before."""
        text = f"violet travel {next(_fresh)}"
        one = many_items(1, start=1000 + next(_fresh))
        many = many_items(20, start=100_000 + 20 * next(_fresh))
        vector = embedding_pb2.Embedding(
            data=np.ones(self.dimensions, "<f4").tobytes(),
            dtype=embedding_pb2.VECTOR_DTYPE_FLOAT32,
            dimensions=self.dimensions,
        )
        event = ranking_pb.Event(
            user_id="other", type=ranking_pb.EVENT_TYPE_LIKE, item_id="item-00003", event_id=f"event-{next(_fresh)}"
        )
        by_text = retrieval_pb.SearchQuery(name="q", text=text, limit=5)
        by_vector = retrieval_pb.SearchQuery(name="q", vector=vector, limit=5)
        retrieval, ranking, catalog = self.retrieval, self.ranking, {"catalog": "default"}
        requests: dict[str, tuple[Any, Any]] = {
            "Recommend, warm user": (ranking.Recommend, ranking_pb.RecommendRequest(user_id="warm", **catalog)),
            "Recommend, cold user with a query": (
                ranking.Recommend,
                ranking_pb.RecommendRequest(user_id=f"cold {text}", query_text=text, **catalog),
            ),
            "RecordEvents": (ranking.RecordEvents, ranking_pb.RecordEventsRequest(events=[event], **catalog)),
            "Search by text": (retrieval.Search, retrieval_pb.SearchRequest(queries=[by_text], **catalog)),
            "Search by vector": (retrieval.Search, retrieval_pb.SearchRequest(queries=[by_vector], **catalog)),
            "UpsertItems, one item": (retrieval.UpsertItems, retrieval_pb.UpsertItemsRequest(items=one, **catalog)),
            "UpsertItems, 20 items": (retrieval.UpsertItems, retrieval_pb.UpsertItemsRequest(items=many, **catalog)),
        }

        def bound(method: Any, request: Any) -> Call:
            return lambda: method(request, timeout=deadline_s)

        return {name: bound(*call) for name, call in requests.items()}

    async def upsert(self, items: Sequence[Item]) -> None:
        """Writes items."""
        request = retrieval_pb.UpsertItemsRequest(catalog="default", items=items)
        await self.retrieval.UpsertItems(request, timeout=30)

    async def fill(self) -> None:
        """Items, a user with a history and a profile, and everything asked once."""
        await self.upsert(many_items(ITEMS))
        users = [ranking_pb.User(id="warm", profile="blue song")]
        await self.ranking.UpsertUsers(ranking_pb.UpsertUsersRequest(catalog="default", users=users), timeout=30)
        events = [
            ranking_pb.Event(user_id="warm", type=ranking_pb.EVENT_TYPE_LIKE, item_id=f"item-{i:05d}")
            for i in (1, 9, 2)
        ]
        await self.ranking.RecordEvents(ranking_pb.RecordEventsRequest(catalog="default", events=events), timeout=30)
        for call in self.calls(30).values():
            await call()


@contextlib.asynccontextmanager
async def stack_under_test(folder: Path, encoder_timeout_s: float = ENCODER_TIMEOUT_S) -> AsyncIterator[StackUnderTest]:
    """Both services in this process, healthy, filled and warm, with a link before each neighbour.

    Args:
        folder: Empty.
        encoder_timeout_s: Of both services.
    """
    async with contextlib.AsyncExitStack() as stack:
        encoder = await stack.enter_async_context(running_fake_encoder(FakeEncoder()))
        links = {"encoder": await stack.enter_async_context(faulty_link(encoder))}
        retrieval = await stack.enter_async_context(
            running_retrieval(folder / "retrieval", links["encoder"].address, encoder_timeout_s)
        )
        links["retrieval"] = await stack.enter_async_context(faulty_link(retrieval))
        settings = RankingSettings(
            port=0,
            drain_delay_s=0,
            grace_s=5,
            data_dir=folder / "ranking",
            encoder_address=links["encoder"].address,
            retrieval_address=links["retrieval"].address,
            encoder_timeout_s=encoder_timeout_s,
            retrieval_timeout_s=RETRIEVAL_TIMEOUT_S,
        )
        ranking = await stack.enter_async_context(_one_after_another(RankingService(settings), settings))
        async with _filled_and_watched(StackUnderTest(folder, retrieval, ranking, links=links)) as under_test:
            yield under_test


@contextlib.asynccontextmanager
async def running_retrieval(
    data_dir: Path, encoder_address: str, encoder_timeout_s: float = ENCODER_TIMEOUT_S
) -> AsyncIterator[str]:
    """A retrieval service in this process; yields its address."""
    settings = RetrievalSettings(
        port=0,
        drain_delay_s=0,
        grace_s=5,
        data_dir=data_dir,
        encoder_address=encoder_address,
        snapshot_at_close_s=0,
        encoder_timeout_s=encoder_timeout_s,
        encoder_stall_s=RETRIEVAL_TIMEOUT_S,
    )
    async with _one_after_another(RetrievalService(settings, lambda: None), settings) as address:
        yield address


@contextlib.asynccontextmanager
async def _one_after_another(service: Service, settings: ServerSettings) -> AsyncIterator[str]:
    """Alembic, which makes the tables, is not made for several threads of one process at once."""
    async with contextlib.AsyncExitStack() as stack:
        async with _starting:
            address = await stack.enter_async_context(running_server(service, settings))
        yield address


@contextlib.asynccontextmanager
async def stack_of_processes(folder: Path) -> AsyncIterator[tuple[StackUnderTest, ServiceProcess, ServiceProcess]]:
    """The same as processes, without links: for what can only be done to a process."""
    async with (
        running_fake_encoder(FakeEncoder()) as encoder,
        service_processes(folder, encoder) as (retrieval, ranking),
        _filled_and_watched(StackUnderTest(folder, retrieval.address, ranking.address)) as under_test,
    ):
        yield under_test, retrieval, ranking


@contextlib.asynccontextmanager
async def _filled_and_watched(stack: StackUnderTest) -> AsyncIterator[StackUnderTest]:
    async with stack.client() as client:
        await client.fill()
    async with asyncio.TaskGroup() as watchers:
        tasks = [
            watchers.create_task(_watch_health(address, name, stack.flaps))
            for name, address in (("retrieval", stack.retrieval_address), ("ranking", stack.ranking_address))
        ]
        yield stack
        for task in tasks:
            task.cancel()


async def _watch_health(address: str, name: str, flaps: list[str]) -> None:
    """Notes every moment that the service says anything but SERVING."""
    async with grpc.aio.insecure_channel(address) as channel:
        async for reply in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="")):
            if reply.status != health_pb2.HealthCheckResponse.SERVING:
                flaps.append(name)
