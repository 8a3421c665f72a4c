"""A real ranking server over fake neighbours, and short words for what the tests do with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from ranking_service.service import RankingService
from ranking_service.settings import RankingSettings
from service_runtime.server import running_server
from tests.ranking_service.fake_encoder_server import FakeEncoder
from tests.ranking_service.fake_retrieval_server import FakeRetrieval
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub


@dataclass
class Harness:
    """The stub, the neighbours, and helpers."""

    stub: RankingServiceStub
    retrieval: FakeRetrieval
    encoder: FakeEncoder
    service: RankingService

    async def recommend(self, user: str = "", **fields) -> pb2.RecommendResponse:
        request = pb2.RecommendRequest(catalog=fields.pop("catalog", "default"), **fields)
        if user:
            request.user_id = user
        return await self.stub.Recommend(request, timeout=10)

    async def act(self, user: str, kind: int, *item_ids: str, **fields) -> str:
        events = [pb2.Event(user_id=user, type=kind, item_id=item_id, **fields) for item_id in item_ids]
        reply = await self.stub.RecordEvents(pb2.RecordEventsRequest(catalog="default", events=events))
        return reply.consistency_token

    async def describe(self, user: str, profile: str) -> None:
        users = [pb2.User(id=user, profile=profile)]
        await self.stub.UpsertUsers(pb2.UpsertUsersRequest(catalog="default", users=users))


@contextlib.asynccontextmanager
async def running_ranking(data_dir: Path, *items: Item, **settings) -> AsyncIterator[Harness]:
    """Starts everything on free ports."""
    retrieval, encoder = FakeRetrieval("default", "empty"), FakeEncoder()
    retrieval.put(*items)
    neighbours = grpc.aio.server()
    retrieval.register(neighbours)
    encoder.register(neighbours)
    port = neighbours.add_insecure_port("127.0.0.1:0")
    await neighbours.start()
    config = RankingSettings(
        port=0,
        data_dir=data_dir,
        retrieval_address=f"127.0.0.1:{port}",
        encoder_address=f"127.0.0.1:{port}",
        drain_delay_s=0,
        grace_s=1,
        **{"item_cache_age_s": 60.0, "catalog_refresh_s": 0.1, **settings},
    )
    service = RankingService(config)
    try:
        async with running_server(service, config) as address, grpc.aio.insecure_channel(address) as channel:
            yield Harness(RankingServiceStub(channel), retrieval, encoder, service)
    finally:
        await neighbours.stop(None)


def item(item_id: str, title: str, *categories: str, days_old: float = 400.0, **fields) -> Item:
    made = Item(id=item_id, title=title, categories=categories, **fields)
    made.created_at.FromNanoseconds(int((time.time() - days_old * 86_400) * 1e9))
    return made


def themed_catalog(per_theme: int = 12) -> list[Item]:
    """Four themes whose items share words within and none between."""
    themes = {
        "film": ("movie cinema director actor", "Films"),
        "music": ("song album singer concert", "Music"),
        "travel": ("beach mountain hotel flight", "Travel"),
        "cooking": ("recipe oven spice kitchen", "Cooking"),
    }
    return [
        item(f"{theme}-{n}", f"{words} {theme}{n}", category, language="en")
        for theme, (words, category) in themes.items()
        for n in range(per_theme)
    ]


def ids(reply) -> list[str]:
    return [entry.item.id for entry in reply.items]


def themes(reply) -> list[str]:
    return [entry.item.id.split("-")[0] for entry in reply.items]
