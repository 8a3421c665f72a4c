"""Two replicas of ranking on one PostgreSQL: what one is told the other honours at once, and soon knows by itself."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ranking_service.users.store.store import UserStore, add_catalog
from ranking_service.users.user_side import UserSide, UserSideSettings
from service_runtime.errors import InvalidRequest, QuotaReached
from service_runtime.signed_token import TokenSigner
from service_runtime.sql import sqlite_url
from tests.ranking_service.user_side_harness import Opened, assert_equal_folds, event, opened, recount
from zhiyin.ranking.v1 import ranking_service_pb2 as pb

ITEMS = [f"film-{i}" for i in range(8)]
KINDS = ["LIKE", "CLICK", "SKIP", "FINISH", "PURCHASE"]


@pytest.fixture(autouse=True)
def _on_postgresql(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZHIYIN_RANKING_STORE_URL", postgres_url)


@asynccontextmanager
async def two_replicas(folder: Path, **settings: float) -> AsyncIterator[tuple[Opened, Opened]]:
    async with opened(folder / "a", **settings) as one, opened(folder / "b", **settings) as other:
        yield one, other


async def soon(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.02)


async def quiet(*replicas: Opened, catalog: str = "default") -> None:
    """Waits until every replica has folded in what the store has."""

    def in_step() -> bool:
        head = replicas[0].side._store.heads()[catalog]
        return all(replica.side._statistics.event_sequence(catalog) == head for replica in replicas)

    await soon(in_step)


def folds(replica: Opened, catalog: str = "default") -> object:
    return replica.side._statistics._catalogs[catalog].statistics


async def test_a_token_from_one_is_honoured_by_the_other_at_once(tmp_path: Path) -> None:
    async with two_replicas(tmp_path, tail_interval_s=60.0) as replicas:  # the tail is of no help
        for number in range(30):
            here, there = replicas if number % 2 else replicas[::-1]
            await there.side.reader.read("default", "ann")  # a warm cache must not answer
            answer = await here.record(event("ann", "LIKE", f"film-{number}"))
            state = await there.side.reader.read("default", "ann", answer.consistency_token)
            assert state.recent[-1].item_id == f"film-{number}"
            assert len(state.recent) == number + 1


async def test_writes_through_both_at_once_are_counted_once(tmp_path: Path) -> None:
    """The same users, the same event ids, two catalogues in opposite order: every event once, in one sequence."""
    dice = random.Random(5)
    batches = [
        [
            event(f"u{dice.randrange(6)}", dice.choice(KINDS), dice.choice(ITEMS), 1.7e9 + 10 * n, event_id=f"e{n}-{i}")
            for i in range(5)
        ]
        for n in range(60)
    ]
    async with two_replicas(tmp_path, tail_interval_s=0.05) as replicas:

        async def through(replica: Opened, order: list[int]) -> int:
            recorded = 0
            for start in range(0, len(order), 6):
                part = order[start : start + 6]
                answers = await asyncio.gather(
                    *(
                        replica.record(*batches[n], catalog=catalog)
                        for n in part
                        for catalog in (("default", "films") if replica is replicas[0] else ("films", "default"))
                    )
                )
                recorded += sum(answer.recorded_count for answer in answers)
            return recorded

        orders = [list(range(60)), list(range(60))]
        random.Random(1).shuffle(orders[1])
        recorded = await asyncio.gather(*(through(r, order) for r, order in zip(replicas, orders, strict=True)))
        assert sum(recorded) == 2 * 60 * 5
        assert min(recorded) > 0  # both had their share
        for catalog in ("default", "films"):
            await quiet(*replicas, catalog=catalog)
            truth = recount(tmp_path, catalog)
            assert truth.sequence == 60 * 5
            for replica in replicas:
                assert_equal_folds(folds(replica, catalog), truth, ITEMS, 1.7e9)
        for user in range(6):
            one, other = [await r.side.reader.read("default", f"u{user}") for r in replicas]
            assert one == other


async def test_the_other_replica_follows_by_itself(tmp_path: Path) -> None:
    """Without a token: what is cached there is replaced within the tail's interval."""
    async with two_replicas(tmp_path) as (one, other):  # the interval that ships
        await one.record(event("ann", "LIKE", "a"))
        await quiet(one, other)
        assert len((await other.side.reader.read("default", "ann")).recent) == 1
        await one.upsert(pb.User(id="ann", profile="爵士"))
        await one.record(event("ann", "LIKE", "b"), event("bob", "LIKE", "b"))
        await quiet(one, other)
        state = await other.side.reader.read("default", "ann")
        assert (state.profile, [i.item_id for i in state.recent]) == ("爵士", ["a", "b"])
        assert dict(other.side.statistics.popular("default", time.time(), 9)).keys() == {"a", "b"}


async def test_who_is_erased_on_one_is_gone_from_both(tmp_path: Path) -> None:
    async with two_replicas(tmp_path, tail_interval_s=0.05) as (one, other):
        for replica in (one, other):
            await replica.record(*(event("eve", "LIKE", film) for film in ITEMS), event("ann", "LIKE", "film-1"))
        await quiet(one, other)
        assert (await other.side.reader.read("default", "eve")).known
        assert (await one.delete("eve")).existed
        await quiet(one, other)
        assert not (await other.side.reader.read("default", "eve")).known
        assert not (await other.delete("eve")).existed
        truth = recount(tmp_path)
        for replica in (one, other):
            assert_equal_folds(folds(replica), truth, ITEMS, time.time())
            assert {item for item, _ in replica.side.statistics.popular("default", time.time(), 99)} == {"film-1"}


async def test_a_read_on_its_way_does_not_bring_an_erased_user_back(tmp_path: Path) -> None:
    """The state was read before the erasure elsewhere and reaches the cache after it."""
    async with two_replicas(tmp_path, tail_interval_s=0.05) as (one, other):
        await one.record(event("eve", "LIKE", "a"))
        await quiet(one, other)
        key = other.side._catalogs.known()["default"]
        state, sequence = other.side._store.read_state(key, "eve", 10)
        await one.delete("eve")
        await quiet(one, other)
        other.side._cache.put("default", state, sequence)
        assert not (await other.side.reader.read("default", "eve")).known


async def put_rule(replica: Opened, rule_id: str, similarity: float) -> str:
    rule = pb.Rule(id=rule_id, action=pb.RULE_ACTION_COLLAPSE, similarity=similarity)
    _, change = await replica.side.rules.put("default", rule, 100, validate_only=False, size_bytes=64)
    return replica.side.token("default", change.after)


def rules(replica: Opened) -> dict[str, float]:
    return {rule.id: rule.similarity for rule in replica.side.rules.books.of("default").rules}


async def test_a_rule_is_in_force_on_the_other_at_once_for_who_brings_the_token(tmp_path: Path) -> None:
    async with two_replicas(tmp_path, tail_interval_s=60.0) as replicas:  # the tail is of no help
        for number in range(20):
            here, there = replicas if number % 2 else replicas[::-1]
            token = await put_rule(here, f"rule-{number % 3}", 0.5 + number / 100)
            await there.side.rules.reach("default", token)
            assert rules(there) == rules(here)
            assert rules(there)[f"rule-{number % 3}"] == 0.5 + number / 100
        deleted = await replicas[0].side.rules.delete("default", "rule-0")
        await replicas[1].side.rules.reach("default", replicas[1].side.token("default", deleted.after))
        assert rules(replicas[1]).keys() == {"rule-1", "rule-2"}
        # Listing reads the store: whoever is asked says the same.
        assert len(await replicas[1].side.rules.page("default", "", 100)) == 2


async def test_the_other_replica_follows_rules_by_itself_and_folds_nothing_anew(tmp_path: Path) -> None:
    async with two_replicas(tmp_path, tail_interval_s=0.05) as (one, other):
        await one.record(event("ann", "LIKE", "a"), event("ann", "LIKE", "b"))
        await quiet(one, other)
        before = folds(other)
        await put_rule(one, "a", 0.7)
        await one.record(event("ann", "LIKE", "c"))
        await put_rule(other, "b", 0.8)
        await quiet(one, other)
        assert rules(one) == rules(other) == {"a": 0.7, "b": 0.8}
        assert folds(other) is before
        assert_equal_folds(folds(other), recount(tmp_path), ITEMS, time.time())
        assert (await one.side.rules.delete("default", "a")).existed
        await soon(lambda: rules(other) == {"b": 0.8})


async def test_rules_written_through_both_at_once_end_alike_and_within_the_limit(tmp_path: Path) -> None:
    async with two_replicas(tmp_path, tail_interval_s=0.05) as replicas:

        async def put(replica: Opened, number: int) -> bool:
            rule = pb.Rule(id=f"rule-{number}", action=pb.RULE_ACTION_COLLAPSE)
            try:
                await replica.side.rules.put("default", rule, 10, validate_only=False, size_bytes=64)
            except QuotaReached:
                return False
            return True

        kept = await asyncio.gather(*(put(replicas[number % 2], number) for number in range(16)))
        assert sum(kept) == 10
        await quiet(*replicas)
        assert rules(replicas[0]) == rules(replicas[1])
        assert len(rules(replicas[0])) == 10


async def test_replicas_with_different_keys_say_what_to_set(tmp_path: Path, postgres_url: str) -> None:
    async with opened(tmp_path / "a") as one:
        token = (await one.record(event("ann", "LIKE", "a"))).consistency_token
        stranger = TokenSigner(b"another key, by mistake")
        settings = UserSideSettings(store_url=postgres_url)
        other = UserSide.open(tmp_path / "b", settings, stranger, one.retrieval.knows)
        with capture_logs() as logs:
            await other.start()
        assert [line["cure"] for line in logs if line["event"] == "token_key_differs"] == [
            "give all replicas one key: token_key_file (ZHIYIN_RANKING_TOKEN_KEY_FILE)"
        ]
        with pytest.raises(InvalidRequest, match="share one key: token_key_file"):
            await other.reader.read("default", "ann", token)
        await other.close()


@pytest.mark.parametrize(
    ("setting", "on_sqlite", "interval"), [(None, False, 0.5), (None, True, 0.0), (2.0, False, 2.0)]
)
def test_the_tail_is_on_where_there_may_be_replicas(
    setting: float | None, on_sqlite: bool, interval: float, tmp_path: Path, postgres_url: str
) -> None:
    url = sqlite_url(tmp_path / "users.sqlite3") if on_sqlite else postgres_url
    settings = UserSideSettings(store_url=url, tail_interval_s=setting)

    async def knows(catalog: str) -> bool:
        return False

    side = UserSide.open(tmp_path, settings, TokenSigner(b"a key for tests only"), knows)
    assert side._tail_interval_s == interval
    assert postgres_url not in repr(settings)
    side._store.close()


def test_two_stores_make_a_catalogue_known_at_once(postgres_url: str) -> None:
    """Both find it missing; the one that is second takes the key of the first."""
    stores = [UserStore(postgres_url), UserStore(postgres_url)]
    for store in stores:
        store.open()
    with stores[0].engine.connect() as early:
        first = early.begin()
        key = add_catalog(early, "films").catalog_key
        keys: list[int] = []

        def second() -> None:
            with stores[1].engine.begin() as late:
                keys.append(add_catalog(late, "films").catalog_key)

        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)  # it waits for the row of the first
        first.commit()
        thread.join()
    assert keys == [key]
    for store in stores:
        store.close()
