"""A mixed load on ranking and what its callers were told, to be compared with what a killed service left."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from ranking_service.users.store.store import UserStore
from ranking_service.users.user_side import UserSide
from service_runtime.sql import sqlite_url
from tests.durability.kill_rounds import ServiceProcess, Strikes, until_killed
from tests.ranking_service.user_side_harness import assert_equal_folds, event, folded, opened
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub

RECORD, STREAM, UPSERT, ERASE, RULE = "record", "stream", "upsert", "erase", "rule"
ITEMS = [f"film-{i}" for i in range(12)]
NOW = 1.7e9
EVENTS_PER_BATCH = 7
USERS_PER_BATCH = 4
GROUPS = 6
RULES = 3
_IN_A_STREAM = 4
_BATCHES_OF_A_STREAM = 24


@dataclass
class Sent:
    """A request of events: its ids, whether it was acknowledged, and of whom it tells."""

    request: pb.RecordEventsRequest
    user: str
    acknowledged: bool = False

    @property
    def ids(self) -> list[str]:
        return [each.event_id for each in self.request.events]


@dataclass
class Group:
    """Users who are always written together; `settled` and `tried` are versions of their profiles."""

    name: str
    settled: int = 0
    tried: list[int] = field(default_factory=list)
    last: int = 0
    revision: int = 0

    def ids(self) -> list[str]:
        return [f"{self.name}-{i}" for i in range(USERS_PER_BATCH)]

    def users(self, version: int) -> list[pb.User]:
        users = [
            pb.User(id=user_id, profile=f"version {version}", follows=[f"{version}/{i}" for i in range(3)])
            for user_id in self.ids()
        ]
        for user in users:
            user.attributes["version"].number_value = version
        return users


@dataclass
class KeptRule:
    """A rule and the versions that it may have; 0: there is none."""

    settled: int = 0
    tried: list[int] = field(default_factory=list)


class Load:
    """Callers of one catalogue. Lives through all kills of one data directory."""

    def __init__(self, strikes: Strikes, seed: int) -> None:
        self._strikes = strikes
        self._dice = random.Random(seed)
        self._number = 0
        self.sent: list[Sent] = []
        self.erased: set[str] = set()
        self.maybe_erased: set[str] = set()
        self.groups = {name: Group(name) for name in (f"group-{i}" for i in range(GROUPS))}
        self.rules = {f"rule-{i}": KeptRule() for i in range(RULES)}
        self._rule_version = 0
        self.sequence = 0

    @property
    def acknowledged(self) -> int:
        return sum(sent.acknowledged for sent in self.sent)

    def start(self, service: ServiceProcess) -> list[asyncio.Task[None]]:
        """Callers that work until the service is gone."""
        stub = RankingServiceStub(service.channel)
        turns = [
            lambda: self._record(stub, "ann"),
            lambda: self._record(stub, "bob"),
            lambda: self._stream(stub, "cat"),
            lambda: self._upsert(stub),
            lambda: self._erase(stub),
            lambda: self._erase(stub),
            lambda: self._rule(stub),
        ]
        return [asyncio.create_task(until_killed(service, turn)) for turn in turns]

    def _batch(self, user: str) -> Sent:
        self._number += 1
        events = [
            event(
                user,
                self._dice.choice(["LIKE", "CLICK", "SKIP", "FINISH"]),
                self._dice.choice(ITEMS),
                NOW + self._number,
                event_id=f"{user}/{self._number}/{i}",
            )
            for i in range(EVENTS_PER_BATCH)
        ]
        sent = Sent(pb.RecordEventsRequest(catalog="default", events=events), user)
        self.sent.append(sent)
        return sent

    async def _record(self, stub: RankingServiceStub, who: str) -> None:
        sent = self._batch(f"{who}-{self._number // 5}")
        with self._strikes.during(RECORD):
            answer = await stub.RecordEvents(sent.request, timeout=30)
        self._acknowledge(sent, answer)

    async def _stream(self, stub: RankingServiceStub, who: str) -> None:
        stream = stub.StreamEvents(timeout=60)
        waiting: dict[int, Sent] = {}

        async def send(number: int) -> None:
            if number < _BATCHES_OF_A_STREAM:
                waiting[number] = self._batch(f"{who}-{self._number // 5}")
                request = waiting[number].request
                await stream.write(
                    pb.StreamEventsRequest(batch_number=number, catalog="default", events=request.events)
                )

        with self._strikes.during(STREAM):
            for number in range(_IN_A_STREAM):
                await send(number)
            for number in range(_BATCHES_OF_A_STREAM):
                answer = await stream.read()
                assert isinstance(answer, pb.StreamEventsResponse), "the stream ended before it answered everything"
                assert answer.WhichOneof("result") == "recorded", answer.error
                self._acknowledge(waiting.pop(answer.batch_number), answer.recorded)
                await send(number + _IN_A_STREAM)
            await stream.done_writing()

    async def _upsert(self, stub: RankingServiceStub) -> None:
        group = self._dice.choice(list(self.groups.values()))
        group.last += 1
        version = group.last
        group.tried.append(version)
        request = pb.UpsertUsersRequest(catalog="default", users=group.users(version))
        with self._strikes.during(UPSERT):
            answer = await stub.UpsertUsers(request, timeout=30)
        assert len(set(answer.revisions)) == 1
        assert answer.revisions[0] > group.revision, "a revision was used twice"
        group.settled, group.revision = version, answer.revisions[0]
        group.tried.clear()

    async def _erase(self, stub: RankingServiceStub) -> None:
        """A user who does something and wants to be forgotten."""
        sent = self._batch(f"gone-{self._number}")
        with self._strikes.during(RECORD):
            answer = await stub.RecordEvents(sent.request, timeout=30)
        self._acknowledge(sent, answer)
        self.maybe_erased.add(sent.user)
        with self._strikes.during(ERASE):
            deleted = await stub.DeleteUser(pb.DeleteUserRequest(catalog="default", user_id=sent.user), timeout=30)
        assert deleted.deleted_event_count == EVENTS_PER_BATCH
        self.erased.add(sent.user)

    async def _rule(self, stub: RankingServiceStub) -> None:
        """Puts a rule, or deletes it."""
        rule_id, kept = self._dice.choice(list(self.rules.items()))
        self._rule_version += 1
        version = self._rule_version if self._dice.random() < 0.7 else 0
        kept.tried.append(version)
        with self._strikes.during(RULE):
            if version:
                rule = pb.Rule(id=rule_id, action=pb.RULE_ACTION_COLLAPSE, note=str(version))
                await stub.PutRule(pb.PutRuleRequest(catalog="default", rule=rule), timeout=30)
            else:
                gone = await stub.DeleteRule(pb.DeleteRuleRequest(catalog="default", rule_id=rule_id), timeout=30)
                assert gone.existed == (kept.settled > 0)
        kept.settled = version
        kept.tried.clear()

    def _acknowledge(self, sent: Sent, answer: pb.RecordEventsResponse) -> None:
        assert answer.recorded_count == EVENTS_PER_BATCH
        sent.acknowledged = True
        self.sequence = max(self.sequence, answer.sequence)

    # ---- after a kill

    async def check_store(self, data_dir: Path, store_url: str = "") -> None:
        """What was acknowledged is there, nothing is there by half, and the statistics equal a recount of the log."""
        settings = {"store_url": store_url, "snapshot_every_events": 100}
        async with opened(data_dir, **settings) as ranking:
            engine = sa.create_engine(store_url or sqlite_url(data_dir / "users.sqlite3"))
            with engine.connect() as connection:
                stored = set(connection.exec_driver_sql("SELECT event_id FROM events").scalars())
                users = set(connection.exec_driver_sql("SELECT user_id FROM users").scalars())
            engine.dispose()
            self._compare_events(stored, users)
            for group in self.groups.values():
                await self._compare_users(group, [await ranking.side.stored_user("default", i) for i in group.ids()])
            await self._compare_rules(ranking.side)
            live = ranking.side._statistics._catalogs["default"].statistics
            assert live.sequence >= self.sequence, "sequence numbers went back"
            self.sequence = live.sequence
            store = UserStore(store_url or sqlite_url(data_dir / "users.sqlite3"))
            store.open()
            log = [entry for page, _ in store.read_log(store.catalogs()["default"], 0) for entry in page]
            store.close()
            assert_equal_folds(live, folded(log), ITEMS, NOW)

    def _compare_events(self, stored: set[str], users: set[str]) -> None:
        assert not self.erased & users, "an erased user came back"
        for sent in self.sent:
            there = len(stored.intersection(sent.ids))
            if sent.user in self.erased:
                assert there == 0, "events of an erased user came back"
                continue
            assert there in (0, EVENTS_PER_BATCH), "half of a request was recorded, or half of a user erased"
            if sent.user in self.maybe_erased:
                if there == 0:
                    self.erased.add(sent.user)
                assert (sent.user in users) == (there > 0)
            elif sent.acknowledged:
                assert there, "an acknowledged event was lost"
            sent.acknowledged = there > 0
        self.sent = [sent for sent in self.sent if sent.acknowledged or sent.user in self.erased]
        known = {event_id for sent in self.sent for event_id in sent.ids}
        assert stored <= known, "there are events that nobody sent"
        self.maybe_erased = set(self.erased)

    async def _compare_rules(self, side: UserSide) -> None:
        stored = {rule.id: int(rule.note) for rule in await side.rules.page("default", "", 100)}
        assert {rule.id: int(rule.note) for rule in side.rules.books.of("default").rules} == stored
        for rule_id, kept in self.rules.items():
            version = stored.pop(rule_id, 0)
            assert version in (kept.settled, *kept.tried), f"{rule_id} is at {version}: {kept}"
            kept.settled, kept.tried = version, []
        assert not stored, "there are rules that nobody made"

    async def _compare_users(self, group: Group, found: list[object]) -> None:
        versions, revisions = set(), set()
        for user in found:
            if user is None:
                versions.add(0)
                continue
            version = int(user.profile.text.split()[1])  # type: ignore[attr-defined]
            assert user.profile.follows == tuple(f"{version}/{i}" for i in range(3))  # type: ignore[attr-defined]
            assert user.profile.attributes["version"] == version  # type: ignore[attr-defined]
            versions.add(version)
            revisions.add(user.revision)  # type: ignore[attr-defined]
        assert len(versions) == 1, f"{group.name} is of several writes"
        (version,) = versions
        assert version in (group.settled, *group.tried), f"{group.name} is at {version}: {group}"
        if version:
            assert revisions.pop() >= group.revision, "a revision went back"
        group.settled, group.tried = version, []

    async def repeat_acknowledged(self, service: ServiceProcess) -> None:
        """Events that were acknowledged and are sent again change nothing."""
        stub = RankingServiceStub(service.channel)
        kept = [sent for sent in self.sent if sent.acknowledged and sent.user not in self.erased]
        for sent in kept[-3:]:
            answer = await stub.RecordEvents(sent.request, timeout=20)
            assert (answer.recorded_count, answer.duplicate_count) == (0, EVENTS_PER_BATCH)
            assert answer.sequence == self.sequence
