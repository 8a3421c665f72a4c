"""The write side of ranking without a server: RPC methods are called, errors come as raised.

On a SQLite file of its own, or on the database that the service's variable names (tests/durability/test_postgres_*).
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from ranking_service.statistics.catalog_statistics import CatalogStatistics
from ranking_service.users.event import Erasure, LogEntry
from ranking_service.users.rpcs_users import UserRpcs
from ranking_service.users.store.store import UserStore
from ranking_service.users.user_side import UserSide, UserSideSettings
from service_runtime.grpc_types import ServicerContext
from service_runtime.signed_token import TokenSigner
from service_runtime.sql import sqlite_url
from zhiyin.ranking.v1 import ranking_service_pb2 as pb

SIGNER = TokenSigner(b"a key for tests only")
NO_CONTEXT = cast(ServicerContext, None)
HALF_LIFE_S = UserSideSettings().popularity_half_life_s


class Retrieval:
    """Answers as the retrieval service would, and counts how often it was asked."""

    def __init__(self, *catalogs: str) -> None:
        self.catalogs = set(catalogs)
        self.asked: list[str] = []

    async def knows(self, catalog: str) -> bool:
        self.asked.append(catalog)
        return catalog in self.catalogs


class Opened:
    """A started UserSide with its RPCs."""

    def __init__(self, side: UserSide, retrieval: Retrieval) -> None:
        self.side = side
        self.rpcs = UserRpcs(side)
        self.retrieval = retrieval

    async def record(self, *events: pb.Event, catalog: str = "default") -> pb.RecordEventsResponse:
        return await self.rpcs.RecordEvents(pb.RecordEventsRequest(catalog=catalog, events=events), NO_CONTEXT)

    async def upsert(self, *users: pb.User, **fields: Any) -> pb.UpsertUsersResponse:
        request = pb.UpsertUsersRequest(catalog="default", users=users, **fields)
        return await self.rpcs.UpsertUsers(request, NO_CONTEXT)

    async def user(self, user_id: str) -> pb.User:
        answer = await self.rpcs.GetUser(pb.GetUserRequest(catalog="default", user_id=user_id), NO_CONTEXT)
        return answer.user

    async def delete(self, user_id: str) -> pb.DeleteUserResponse:
        return await self.rpcs.DeleteUser(pb.DeleteUserRequest(catalog="default", user_id=user_id), NO_CONTEXT)

    async def export(self, user_id: str) -> list[pb.ExportUserResponse]:
        request = pb.ExportUserRequest(catalog="default", user_id=user_id)
        return [part async for part in self.rpcs.ExportUser(request, NO_CONTEXT)]


@asynccontextmanager
async def opened(folder: Path, **settings: Any) -> AsyncIterator[Opened]:
    retrieval = Retrieval("films")
    options = {"store_url": os.environ.get("ZHIYIN_RANKING_STORE_URL", ""), **settings}
    side = UserSide.open(folder, UserSideSettings(**options), SIGNER, retrieval.knows)
    await side.start()
    try:
        yield Opened(side, retrieval)
    finally:
        await side.close()


def event(
    user: str,
    kind: str,
    item: str = "",
    at: float | None = None,
    value: float | None = None,
    event_id: str = "",
    **fields: Any,
) -> pb.Event:
    """An event in few words; `at` is Unix seconds, None: without a time."""
    message = pb.Event(user_id=user, type=pb.EventType.Value(f"EVENT_TYPE_{kind}"), item_id=item, **fields)
    message.event_id = event_id
    if value is not None:
        message.value = value
    if at is not None:
        message.time.FromNanoseconds(round(at * 1e6) * 1_000)
    return message


def folded(entries: Sequence[LogEntry | Erasure]) -> CatalogStatistics:
    """Statistics of a log, from nothing."""
    statistics = CatalogStatistics(HALF_LIFE_S)
    statistics.apply(entries, entries[-1].sequence if entries else 0)
    return statistics


def recount(folder: Path, catalog: str = "default") -> CatalogStatistics:
    """Statistics of the log in a store that nobody writes to."""
    store = UserStore(os.environ.get("ZHIYIN_RANKING_STORE_URL") or sqlite_url(folder / "users.sqlite3"))
    store.open()
    entries = [entry for page, _ in store.read_log(store.catalogs()[catalog], 0) for entry in page]
    store.close()
    return folded(entries)


def assert_equal_folds(one: Any, other: Any, items: Sequence[str], now: float) -> None:
    """Popularity and transitions of two CatalogStatistics, item for item."""
    popular = dict(one.popular(now, 10_000)), dict(other.popular(now, 10_000))
    assert_close(*popular)
    for item in items:
        following = dict(one.following({item: 1.0}, 10_000)), dict(other.following({item: 1.0}, 10_000))
        assert_close(*following)


def assert_close(one: dict[str, float], other: dict[str, float]) -> None:
    """Equal within 1e-9 of the largest."""
    scale = max([*one.values(), *other.values(), 1e-300])
    for item in one.keys() | other.keys():
        left, right = one.get(item, 0.0), other.get(item, 0.0)
        assert math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9 * scale), (item, left, right)
