"""A retrieval service in this process (its index worker is a real process), with a fake encoder beside it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from retrieval_service.service import RetrievalService
from retrieval_service.settings import RetrievalSettings
from service_runtime.server import running_server
from tests.retrieval_service.fake_encoder_server import FakeEncoder, running_fake_encoder
from zhiyin.common.v1 import item_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as pb_grpc

COLOURS = ("red", "blue", "green", "amber", "violet", "black", "white", "grey")
THINGS = ("film", "song", "travel", "course", "game", "news", "shoe", "video", "post", "book")


@dataclass
class Retrieval:
    """What a test needs of a running service."""

    stub: pb_grpc.RetrievalServiceStub
    service: RetrievalService
    encoder: FakeEncoder
    ended: list[str] = field(default_factory=list)
    address: str = ""

    async def upsert(self, *items: item_pb2.Item, catalog: str = "default", **options: Any) -> pb.UpsertItemsResponse:
        return await self.stub.UpsertItems(pb.UpsertItemsRequest(catalog=catalog, items=items, **options), timeout=20)

    async def search_text(self, text: str, *, catalog: str = "default", limit: int = 10, **options: Any) -> list[str]:
        """Ids of the hits of one text query."""
        query_options = {k: options.pop(k) for k in ("exact",) if k in options}
        response = await self.stub.Search(
            pb.SearchRequest(
                catalog=catalog, queries=[pb.SearchQuery(text=text, limit=limit, **query_options)], **options
            ),
            timeout=20,
        )
        return hit_ids(response)

    async def stats(self, catalog: str = "default") -> pb.GetCatalogStatsResponse:
        return await self.stub.GetCatalogStats(pb.GetCatalogStatsRequest(catalog=catalog), timeout=20)


@contextlib.asynccontextmanager
async def running_retrieval(
    data_dir: Path, encoder: FakeEncoder | None = None, **settings: Any
) -> AsyncIterator[Retrieval]:
    """Starts encoder and service on free ports; stops both at the end, as SIGTERM would."""
    encoder = encoder or FakeEncoder()
    ended: list[str] = []
    async with running_fake_encoder(encoder) as encoder_address:
        options: dict[str, Any] = {
            "port": 0,
            "data_dir": data_dir,
            "encoder_address": encoder_address,
            "drain_delay_s": 0.0,
            "grace_s": 5.0,
            "snapshot_at_close_s": 0.0,
        }
        service = RetrievalService(RetrievalSettings(**{**options, **settings}), lambda: ended.append("ended"))
        async with (
            running_server(service, service._settings) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            yield Retrieval(pb_grpc.RetrievalServiceStub(channel), service, encoder, ended, address)


def item(item_id: str, title: str = "", **fields: Any) -> item_pb2.Item:
    """An item; the title defaults to the id."""
    attributes = fields.pop("attributes", {})
    message = item_pb2.Item(id=item_id, title=title or item_id, **fields)
    for name, value in attributes.items():
        if isinstance(value, bool):
            message.attributes[name].bool_value = value
        elif isinstance(value, str):
            message.attributes[name].string_value = value
        elif isinstance(value, (list, tuple)):
            message.attributes[name].string_list_value.values.extend(value)
        else:
            message.attributes[name].number_value = value
    return message


def many_items(count: int, start: int = 0) -> list[item_pb2.Item]:
    """Different items whose titles share words."""
    return [
        item(
            f"item-{i:05d}",
            f"{COLOURS[i % 8]} {THINGS[(i // 8) % 10]} number {i}",
            categories=[THINGS[(i // 8) % 10]],
            attributes={"price": float(i % 100), "colour": COLOURS[i % 8], "even": i % 2 == 0},
        )
        for i in range(start, start + count)
    ]


def hit_ids(response: pb.SearchResponse, query: int = 0) -> list[str]:
    """Ids of the hits of one query."""
    return [response.items[i].id for i in response.results[query].item_indices]


def batches(items: Iterable[item_pb2.Item], size: int) -> list[list[item_pb2.Item]]:
    """Items in parts."""
    rest = list(items)
    return [rest[i : i + size] for i in range(0, len(rest), size)]
