"""A cached user is what the store would give, whatever was written, and never older than its token."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking_service.users.event_types import RULES, name
from ranking_service.users.user import Change, UserChange
from ranking_service.users.user_cache import UserCache
from ranking_service.users.user_state import Interaction, UserState
from service_runtime.errors import FailedPrecondition, InvalidRequest, StoreUnavailable
from service_runtime.signed_token import TokenSigner
from tests.ranking_service.user_side_harness import NO_CONTEXT, SIGNER, Opened, event, opened
from zhiyin.ranking.v1 import ranking_service_pb2 as pb

USERS = ("ann", "bob")
VALUES = {"RATING": [0.5, 4.0], "VIEW": [0.2, 0.95]}


@st.composite
def events(draw: st.DrawFn) -> pb.Event:
    kind = name(draw(st.sampled_from(sorted(RULES))))
    value = draw(st.sampled_from(VALUES[kind])) if kind in VALUES else None
    text = "jazz" if kind in ("SEARCH", "COMMENT") else ""
    item = "" if kind == "SEARCH" else draw(st.sampled_from("abcdefgh"))
    at = 1.7e9 + draw(st.integers(0, 5))
    return event(draw(st.sampled_from(USERS)), kind, item, at, value, text=text)


profiles = st.builds(
    pb.User,
    id=st.sampled_from(USERS),
    profile=st.sampled_from(["jazz", "民谣"]),
    follows=st.lists(st.sampled_from(USERS)),
)
writes = st.lists(
    st.lists(events(), min_size=1, max_size=6) | profiles | st.sampled_from([f"erase {user}" for user in USERS]),
    max_size=12,
)


@settings(max_examples=20, deadline=None)
@given(writes, st.sampled_from([3, 200]))
def test_the_cache_equals_the_store(steps: list[list[pb.Event] | pb.User | str], max_recent: int) -> None:
    async def run(ranking: Opened) -> None:
        for user in USERS:
            await ranking.side.reader.read("default", user)
        for step in steps:
            if isinstance(step, str):
                await ranking.delete(step.removeprefix("erase "))
            elif isinstance(step, pb.User):
                await ranking.upsert(step)
            else:
                await ranking.record(*step)
            for user in USERS:
                cached = await ranking.side.reader.read("default", user)
                stored, _ = ranking.side._store.read_state(1, user, max_recent)
                assert cached == stored

    async def main(folder: Path) -> None:
        async with opened(folder, max_recent_interactions=max_recent) as ranking:
            await run(ranking)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))


def liked(user: str, before: int, sequence: int) -> Change:
    interaction = Interaction("a", pb.EVENT_TYPE_LIKE, 0.8, float(sequence), sequence=sequence)
    change = UserChange(user, 1, before, before + 1, (interaction,))
    return Change("default", sequence - 1, sequence, users=(change,))


def test_a_state_read_before_a_write_is_not_kept_after_it() -> None:
    cache = UserCache(1_000, 10)
    read_before = UserState("ann", known=True, version=1, key=1)
    cache.apply(liked("ann", 1, 8))
    cache.put("default", read_before, 7)
    assert cache.get("default", "ann") is None
    cache.put("default", replace(read_before, version=2), 8)
    kept = cache.get("default", "ann")
    assert kept is not None
    assert kept.version == 2


def test_a_state_read_after_a_commit_and_before_its_apply_is_not_changed_twice() -> None:
    cache = UserCache(1_000, 10)
    cache.put("default", UserState("ann", known=True, version=2, key=1), 8)
    cache.apply(liked("ann", 1, 8))
    kept = cache.get("default", "ann")
    assert kept is not None
    assert (kept.version, kept.recent) == (2, ())


def test_the_cache_is_bounded_and_keeps_who_was_used_last() -> None:
    cache = UserCache(200, 10)
    for number in range(50):
        cache.put("default", UserState(f"user-{number}", seen=frozenset("abcd")), 1)
        cache.get("default", "user-0")
    assert cache.weight <= 200
    assert cache.get("default", "user-0") is not None
    assert cache.get("default", "user-1") is None
    assert cache.get("default", "user-49") is not None


@pytest.fixture
async def ranking(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path) as ranking:
        yield ranking


async def test_read_your_writes_without_a_pause(ranking: Opened) -> None:
    for i in range(200):
        answer = await ranking.record(event(f"user-{i % 7}", "LIKE", f"item-{i}"))
        state = await ranking.side.reader.read("default", f"user-{i % 7}", answer.consistency_token)
        assert state.recent[-1].item_id == f"item-{i}"


async def test_readers_beside_a_writer_never_see_an_older_state_than_before(ranking: Opened) -> None:
    stop = asyncio.Event()

    async def watch() -> int:
        versions = [0]
        while not stop.is_set():
            versions.append((await ranking.side.reader.read("default", "ann")).version)
            if len(versions) % 3 == 0:
                ranking.side._cache.drop("default", ["ann"], [], 0)
        assert versions == sorted(versions)
        return versions[-1]

    watchers = [asyncio.create_task(watch()) for _ in range(4)]
    for i in range(60):
        await ranking.record(event("ann", "CLICK", f"item-{i}"))
        assert (await ranking.side.reader.read("default", "ann")).version == i + 1
    stop.set()
    await asyncio.gather(*watchers)


async def test_tokens_are_checked(ranking: Opened) -> None:
    reader = ranking.side.reader
    with pytest.raises(InvalidRequest, match="consistency_token"):
        await reader.read("default", "ann", "nonsense")
    forged = TokenSigner(b"another key, as long").sign("consistency", {"e": "x", "c": "default", "s": 1})
    with pytest.raises(InvalidRequest):
        await reader.read("default", "ann", forged)
    films = (await ranking.record(event("ann", "LIKE", "a"), catalog="films")).consistency_token
    with pytest.raises(InvalidRequest, match="films"):
        await reader.read("default", "ann", films)
    other_store = SIGNER.sign("consistency", {"e": "other", "c": "default", "s": 1})
    with pytest.raises(FailedPrecondition) as error:
        await reader.read("default", "ann", other_store)
    assert error.value.reason == "STORE_EPOCH_MISMATCH"
    seen = ranking.side.consistency_token("default")
    assert not (await reader.read("default", "ann", seen)).known


async def test_another_replica_honours_the_token_and_follows_the_log(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer, opened(tmp_path, tail_interval_s=0.05, token_wait_s=0.1) as replica:
        await writer.record(event("ann", "LIKE", "a"))
        await replica.side.reader.read("default", "ann")
        token = (await writer.record(event("ann", "LIKE", "b"))).consistency_token
        state = await replica.side.reader.read("default", "ann", token)  # its cache is older: it reads the store
        assert [i.item_id for i in state.recent] == ["a", "b"]
        ahead = SIGNER.sign("consistency", {"e": writer.side._store.epoch, "c": "default", "s": 99})
        with pytest.raises(StoreUnavailable, match="asks for 99"):
            await replica.side.reader.read("default", "ann", ahead)
        await writer.delete("ann")
        last = (await writer.record(event("bob", "LIKE", "c"))).sequence
        async with asyncio.timeout(10):
            while replica.side.statistics.event_sequence("default") < last:
                await asyncio.sleep(0.02)
        assert [item for item, _ in replica.side.statistics.popular("default", 1.8e9, 9)] == ["c"]
        assert not (await replica.side.reader.read("default", "ann")).known
        # Both write: each folds in what the other wrote in between.
        await replica.record(event("cat", "LIKE", "d"))
        await writer.record(event("dan", "LIKE", "e"))
        popular = {item for item, _ in writer.side.statistics.popular("default", 1.8e9, 9)}
        assert popular == {"c", "d", "e"}


async def test_a_catalogue_without_events_is_empty(ranking: Opened) -> None:
    assert ranking.side.statistics.popular("films", 1.8e9, 5) == []
    assert ranking.side.statistics.transitions("films", {"a": 1.0}, 5) == []
    assert ranking.side.statistics.event_sequence("films") == 0
    export = pb.ExportUserRequest(catalog="default", user_id="")
    with pytest.raises(InvalidRequest):
        await anext(ranking.rpcs.ExportUser(export, NO_CONTEXT))
