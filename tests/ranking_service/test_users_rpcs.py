"""UpsertUsers, GetUser, DeleteUser and ExportUser."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from service_runtime.errors import InvalidRequest, NotFound, RevisionConflict
from tests.ranking_service.user_side_harness import Opened, event, opened, recount
from zhiyin.common.v1.item_pb2 import AttributeValue
from zhiyin.ranking.v1 import ranking_service_pb2 as pb


def user(user_id: str, profile: str = "", follows: tuple[str, ...] = (), **attributes: Any) -> pb.User:
    message = pb.User(id=user_id, profile=profile, follows=follows)
    for name, value in attributes.items():
        kind = {str: "string_value", float: "number_value", bool: "bool_value"}[type(value)]
        message.attributes[name].CopyFrom(AttributeValue(**{kind: value}))
    return message


async def test_a_user_is_written_and_read_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        written = user(
            "安", "喜欢看电影，最近看了《哪吒之魔童降世》", ("bob", "bob", "cat"), city="成都", age=33.0, pro=True
        )
        answer = await ranking.upsert(written)
        assert list(answer.revisions) == [1]
        read = await ranking.user("安")
        assert read.profile == written.profile
        assert read.attributes == written.attributes
        assert list(read.follows) == ["bob", "cat"]
        assert (read.revision, read.event_count) == (1, 0)
        assert abs(read.updated_at.ToSeconds() - time.time()) < 60
        state = await ranking.side.reader.read("default", "安", answer.consistency_token)
        assert (state.known, state.profile, state.follows) == (True, written.profile, ("bob", "cat"))
        assert state.attributes == {"age": 33.0, "city": "成都", "pro": True}


async def test_a_user_known_by_events_only_exists(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        with pytest.raises(NotFound, match="ann"):
            await ranking.user("ann")
        assert not (await ranking.side.reader.read("default", "ann")).known
        await ranking.record(event("ann", "SEARCH", text="jazz"))
        read = await ranking.user("ann")
        assert (read.revision, read.event_count, read.HasField("updated_at")) == (0, 1, False)
        state = await ranking.side.reader.read("default", "ann")
        assert state.known
        assert [i.text for i in state.recent] == ["jazz"]


async def test_without_a_mask_everything_is_replaced_with_one_only_what_it_names(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        await ranking.upsert(user("ann", "jazz", ("bob",), city="Rome"))
        await ranking.upsert(user("ann", "blues"), user("new", "rock"), update_mask=FieldMask(paths=["profile"]))
        ann = await ranking.user("ann")
        assert (ann.profile, list(ann.follows), ann.attributes["city"].string_value) == ("blues", ["bob"], "Rome")
        assert (await ranking.user("new")).profile == "rock"
        await ranking.upsert(user("ann", "folk"))
        ann = await ranking.user("ann")
        assert (ann.profile, list(ann.follows), dict(ann.attributes), ann.revision) == ("folk", [], {}, 3)


async def test_a_revision_that_moved_on_refuses_the_whole_request(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        await ranking.upsert(user("ann", "jazz"), check_revision=True)
        with pytest.raises(RevisionConflict, match="revision 1"):
            await ranking.upsert(user("bob"), user("ann", "blues"), check_revision=True)
        with pytest.raises(NotFound):
            await ranking.user("bob")
        moved = user("ann", "blues")
        moved.revision = 1
        assert list((await ranking.upsert(moved, check_revision=True)).revisions) == [2]


async def test_validate_only_finds_everything_and_writes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        await ranking.upsert(user("ann", city="Rome"))
        await ranking.upsert(user("bob", "jazz"), validate_only=True)
        with pytest.raises(NotFound):
            await ranking.user("bob")
        with pytest.raises(InvalidRequest, match="is a number; in this catalogue it is a string"):
            await ranking.upsert(user("bob", city=7.0), validate_only=True)
        assert (await ranking.user("ann")).revision == 1


async def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        too_long = user("long", "好" * 3_000)
        with pytest.raises(InvalidRequest) as error:
            await ranking.upsert(
                user(""),
                too_long,
                user("ann", follows=("", "bob")),
                user("ann"),
                user("cat", Bad=1.0),
                update_mask=FieldMask(paths=["revision"]),
            )
        assert {violation.field for violation in error.value.violations} == {
            "users[0].id",
            "users[1].profile",
            "users[2].follows[0]",
            "users[3].id",
            "users[4].attributes[Bad]",
            "update_mask",
        }


async def test_an_attribute_keeps_its_first_type_within_a_request_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        with pytest.raises(InvalidRequest) as error:
            await ranking.upsert(user("ann", age=3.0), user("bob", age="three"))
        assert [violation.field for violation in error.value.violations] == ["users[1].attributes[age]"]
        await ranking.upsert(user("bob", age="three"))  # the refused request has settled nothing


async def test_an_export_gives_everything_back_oldest_first(tmp_path: Path) -> None:
    sent = [
        event("ann", "RATING", f"film-{i}", 1e9 + i // 2, 4.5, f"e{i}", session_id="s", text="很好")
        for i in range(1_201)
    ]
    sent[7].context.CopyFrom(pb.RecommendContext(locale="zh", device="tv", place="home"))
    sent[7].context.time.seconds = 5
    async with opened(tmp_path) as ranking:
        await ranking.upsert(user("ann", "jazz"))
        for start in (600, 0, 1_200):
            await ranking.record(*sent[start : start + 600])
        parts = await ranking.export("ann")
        assert parts[0].user.profile == "jazz"
        exported = [e for part in parts[1:] for e in part.events.events]
        assert sorted(e.time.seconds for e in exported) == [e.time.seconds for e in exported]
        assert sorted(exported, key=lambda e: int(e.event_id[1:])) == sent
        with pytest.raises(NotFound):
            await ranking.export("nobody")


async def fill(ranking: Opened) -> None:
    now = time.time()
    await ranking.upsert(
        user("victim-4711", "A SECRET PROFILE", ("bob",), city="SECRETVILLE"), user("bob", follows=("victim-4711",))
    )
    for i in range(40):
        await ranking.record(
            event("victim-4711", "LIKE", f"film-{i % 7}", now - i, event_id=f"victims-event-{i}"),
            event("victim-4711", "SEARCH", at=now - i, text="A SECRET SEARCH"),
            event(
                "victim-4711",
                "COMMENT",
                f"film-{i % 7}",
                now - i,
                text="A SECRET COMMENT",
                session_id="victims-session",
            ),
            event(f"other-{i % 5}", "LIKE", f"film-{i % 6}", now - i),
        )


async def test_an_erasure_leaves_no_bytes_and_no_trace_in_the_statistics(tmp_path: Path) -> None:
    now = time.time()
    async with opened(tmp_path) as ranking:
        await fill(ranking)
        assert len(await ranking.export("victim-4711")) == 2
        await ranking.side.reader.read("default", "bob")
        answer = await ranking.delete("victim-4711")
        assert (answer.existed, answer.deleted_event_count) == (True, 120)
        for path in [p for p in tmp_path.rglob("*") if p.is_file()]:
            content = path.read_bytes()
            for planted in (b"victim-4711", b"SECRET", b"victims-", b"film-6"):  # film-6: acted on by nobody else
                assert planted not in content, path.name
        with pytest.raises(NotFound):
            await ranking.user("victim-4711")
        assert not (await ranking.side.reader.read("default", "victim-4711")).known
        assert (await ranking.side.reader.read("default", "bob")).follows == ()
        again = await ranking.delete("victim-4711")
        assert (again.existed, again.deleted_event_count) == (False, 0)
        live = dict(ranking.side.statistics.popular("default", now, 100))
        following = dict(ranking.side.statistics.transitions("default", {"film-1": 1.0}, 100))
    counted = recount(tmp_path)
    assert live == pytest.approx(dict(counted.popular(now, 100)))
    assert following == pytest.approx(dict(counted.following({"film-1": 1.0}, 100)))
    assert "film-6" not in live  # only the erased user liked it


async def test_somebody_erased_who_comes_back_is_somebody_new(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        await fill(ranking)
        await ranking.delete("victim-4711")
        answer = await ranking.record(event("victim-4711", "LIKE", "film-9", event_id="victims-event-1"))
        assert answer.recorded_count == 1
        state = await ranking.side.reader.read("default", "victim-4711", answer.consistency_token)
        assert [i.item_id for i in state.recent] == ["film-9"]
        assert state.profile == ""


async def test_an_erasure_while_others_write_and_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        await fill(ranking)

        async def others() -> None:
            for i in range(30):
                await ranking.record(event("bob", "LIKE", f"film-{i}"))
                await ranking.side.reader.read("default", f"other-{i % 5}")

        await asyncio.gather(others(), ranking.delete("victim-4711"), others())
        for path in tmp_path.rglob("users.sqlite3*"):
            assert b"SECRET" not in path.read_bytes(), path.name


async def test_the_database_is_as_careful_as_promised(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking, asyncio.timeout(10):
        with ranking.side._store.engine.connect() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "secure_delete", "foreign_keys")
            }
        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1}
