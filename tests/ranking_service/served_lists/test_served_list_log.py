"""The log of served lists by itself: what it keeps, for how long, and what happens when it cannot write."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import numpy as np
import pytest

from ranking_service.candidate import Provenance, SourceKind
from ranking_service.page import Page
from ranking_service.query import Query
from ranking_service.scorers.weighted_sum import Scores
from ranking_service.selectors.exploration_slots import Place
from ranking_service.selectors.slate import Slate, Versions
from ranking_service.served_lists.log_bounds import LogBounds
from ranking_service.served_lists.page_record import unpack
from ranking_service.served_lists.served_list_log import ServedListLog
from ranking_service.served_lists.served_list_store import served_list_store
from ranking_service.served_lists.served_page import ServedPage
from ranking_service.taste import Taste
from ranking_service.users.user_state import UserState
from service_runtime.errors import StoreUnavailable
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb

DAY = 86_400.0


class Clock:
    """Unix seconds that stand still."""

    def __init__(self) -> None:
        self.now = 1.7e9

    def __call__(self) -> float:
        return self.now


def served(list_id: str, user: str = "ada", title: str = "a film", key: int = 0) -> ServedPage:
    """One page with one item."""
    zeros = np.zeros(1, np.float32)
    slate = Slate(
        list_id=list_id,
        taste=Taste(Query("default", user, now=1.7e9, seed=7), UserState(user, key=key)),
        items=[Item(id="film-1", title=title)],
        vectors=np.zeros((1, 4), np.float16),
        scores=Scores(zeros, {}, zeros),
        provenance={SourceKind.POPULAR: Provenance(np.ones(1, np.int32), np.ones(1))},
        main=1,
        drawn=np.zeros(0, np.int32),
        max_length=10,
        versions=Versions(),
    )
    entry = pb.RecommendedItem(item=slate.items[0], rank=1, reason=pb.Reason(text="because"))
    request = pb.RecommendRequest(catalog="default", user_id=user, consistency_token="not kept")
    response = pb.RecommendResponse(items=[entry])
    return ServedPage(slate, Page([Place(0)], 1, 1, (), False), request, response, True, time.monotonic())


@asynccontextmanager
async def opened(
    folder: Path, store_url: str = "", clock: Clock | None = None, **bounds: float
) -> AsyncIterator[ServedListLog]:
    log = ServedListLog(
        served_list_store(folder, store_url),
        lambda *_: [],
        LogBounds(**bounds),
        clock or Clock(),  # type: ignore[arg-type]
    )
    log.start()
    try:
        yield log
    finally:
        await log.close()


async def kept(log: ServedListLog, *list_ids: str) -> list[str]:
    return [list_id for list_id in list_ids if await log.find("default", list_id)]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


async def test_pages_are_kept_over_a_restart_without_consistency_tokens(tmp_path: Path, url: str) -> None:
    async with opened(tmp_path, url) as log:
        log.offer(served("one"))
        log.offer(served("other", user=""))
        assert await kept(log, "one", "other") == ["one", "other"]
    async with opened(tmp_path, url) as log:
        (record,) = await log.find("default", "one")
        content = unpack(record.payload)
        assert content.request == pb.RecommendRequest(catalog="default", user_id="ada")
        assert content.response.items[0].reason.text == "because"
        assert (content.seed, content.now, record.time_us) == (7, 1.7e9, int(1.7e15))
        assert not await log.find("default", "other")
        assert not await log.find("another", "one")


async def test_old_pages_go(tmp_path: Path, url: str) -> None:
    clock = Clock()
    async with opened(tmp_path, url, clock, store_s=7 * DAY, memory_s=0.0) as log:
        for list_id in ("monday", "tuesday"):
            log.offer(served(list_id))
            await log.tidy()
            clock.now += DAY
        clock.now += 5.5 * DAY
        await log.tidy()
        assert await kept(log, "monday", "tuesday") == ["tuesday"]
    clock.now += DAY
    async with opened(tmp_path, url, clock, store_s=7 * DAY) as log:
        await log.tidy()
        assert not await kept(log, "tuesday")


async def test_the_oldest_make_room(tmp_path: Path, url: str) -> None:
    clock = Clock()
    async with opened(tmp_path, url, clock, store_bytes=600 * 700, memory_bytes=0) as log:
        for number in range(1_300):
            clock.now += 1
            log.offer(served(f"list-{number}"))
            if number % 100 == 0:
                await log.tidy()
        await log.tidy()
        assert log._store.size_bytes() <= 600 * 700
        assert await kept(log, "list-0", "list-1299") == ["list-1299"]


async def test_an_erased_user_is_gone_also_from_what_is_being_made(tmp_path: Path, url: str) -> None:
    async with opened(tmp_path, url) as log:
        log.offer(served("mine", "victim-4711", title="SECRET"))
        log.offer(served("theirs"))
        assert await kept(log, "mine") == ["mine"]
        log.offer(served("waits", "victim-4711"))
        in_the_making = served("late", "victim-4711")
        await log.erase("default", "victim-4711")
        log.offer(in_the_making)
        assert await kept(log, "mine", "waits", "late", "theirs") == ["theirs"]
        log.offer(served("new", "victim-4711"))
        assert await kept(log, "new") == ["new"]
        await log.erase("default", "victim-4711")
        for path in tmp_path.rglob("*"):
            assert path.is_dir() or b"victim-4711" not in path.read_bytes(), path.name


async def test_memory_alone_where_nothing_is_kept_on_disk(tmp_path: Path, url: str) -> None:
    async with opened(tmp_path, url) as log:
        log.offer(served("before"))
    async with opened(tmp_path, url, store_s=0) as log:
        log.offer(served("one"))
        assert await kept(log, "before", "one") == ["one"]
        await log.erase("default", "ada")
        assert not await kept(log, "one")
    async with opened(tmp_path, url) as log:
        assert not await kept(log, "before", "one")


async def test_memory_is_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path, store_s=0, memory_bytes=20_000) as log:
        for number in range(50):
            log.offer(served(f"list-{number}"))
        assert await kept(log, "list-0", "list-49") == ["list-49"]
        assert log._recent._bytes <= 20_000


async def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        for number in range(200):
            log.offer(served(f"list-{number}", title=str(number) * 100))
    (file,) = tmp_path.rglob("*.sqlite3")
    file.write_bytes(file.read_bytes()[:4096] + b"\xff" * 8192)
    async with opened(tmp_path) as log:
        log.offer(served("first"))
        await log.tidy()
        log.offer(served("second"))
        await log.erase("default", "nobody")
        assert "second" in await kept(log, "first", "second")
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_store_that_cannot_be_written_to_holds_nobody_up_but_an_erasure(tmp_path: Path) -> None:
    (tmp_path / "served_lists").write_text("a file where the folder should be")
    async with opened(tmp_path) as log:
        log.offer(served("one"))
        assert await kept(log, "one") == ["one"]  # from memory
        (tmp_path / "served_lists").unlink()
        (tmp_path / "served_lists" / "served_lists.sqlite3").mkdir(parents=True)
        with pytest.raises(StoreUnavailable):
            await log.erase("default", "ada")


async def test_what_was_served_to_somebody_whom_another_replica_erased_goes_too(tmp_path: Path, url: str) -> None:
    async with opened(tmp_path, url) as log:
        log.offer(served("before", key=4))
        log.offer(served("other", key=5))
        assert await kept(log, "before") == ["before"]
        log.forget_keys("default", [4, 6])
        log.offer(served("late", key=4))
        assert await kept(log, "before", "late", "other") == ["other"]
    async with opened(tmp_path, url) as log:
        assert await kept(log, "before", "late", "other") == ["other"]
