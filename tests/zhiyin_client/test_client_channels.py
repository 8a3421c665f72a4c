"""Deadlines, repeats, identity: what both clients put on the wire, and what they do when a call fails there."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.certificates import Authority
from tests.zhiyin_client.conftest import Services, opened
from tests.zhiyin_client.scripted_server import Failure, ScriptedServer, running
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin_client import AsyncClient, Client, Event, EventType, Item, Rule, Tls, User, errors
from zhiyin_client.targets import is_loopback

ROOT = Path(__file__).parents[2]
LIKE = EventType.EVENT_TYPE_LIKE
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
CALLS: dict[str, Callable[..., Any]] = {
    "CreateCatalog": lambda client, **t: client.create_catalog(**t),
    "DropCatalog": lambda client, **t: client.drop_catalog(**t),
    "UpsertItems": lambda client, **t: client.upsert_items([Item(id="a")], **t),
    "DeleteItems": lambda client, **t: client.delete_items(["a"], **t),
    "GetItems": lambda client, **t: client.get_items(["a"], **t),
    "ListItems": lambda client, **t: client.list_items(**t),
    "Search": lambda client, **t: client.search("w1", **t),
    "Embed": lambda client, **t: client.embed("w1", **t),
    "Classify": lambda client, **t: client.classify("w1", {"a": "b", "c": "d"}, **t),
    "GetModelInfo": lambda client, **t: client.model_info(**t),
    "Recommend": lambda client, **t: client.recommend("ada", **t),
    "SimilarItems": lambda client, **t: client.similar_items("a", **t),
    "Rerank": lambda client, **t: client.rerank({"a": 1.0}, **t),
    "Explain": lambda client, **t: client.explain("token", **t),
    "RecordEvents": lambda client, **t: client.record_events(Event(user_id="ada", type=LIKE, item_id="a"), **t),
    "UpsertUsers": lambda client, **t: client.upsert_users(User(id="ada"), **t),
    "GetUser": lambda client, **t: client.get_user("ada", **t),
    "DeleteUser": lambda client, **t: client.delete_user("ada", **t),
    "PutRule": lambda client, **t: client.put_rule(Rule(id="r"), **t),
    "ListRules": lambda client, **t: client.list_rules(**t),
    "DeleteRule": lambda client, **t: client.delete_rule("r", **t),
}
# A repeat of one that was carried out would be told NOT_FOUND.
ONCE = {"DropCatalog"}


async def made(call: Any) -> None:
    if inspect.isasyncgen(call):
        _ = [value async for value in call]
    else:
        await call


def public(kind: type) -> set[str]:
    return {name for name, member in inspect.getmembers(kind, callable) if not name.startswith("_")}


def test_both_clients_have_the_same_surface_and_every_call_is_tested_here() -> None:
    assert public(Client) == public(AsyncClient)
    beside = {"close", "session", "in_catalog", "recommend_all", "import_items", "import_events", "import_users"}
    assert len(public(Client) - beside) == len(CALLS)


def test_the_waiting_client_is_made_from_the_awaiting_one() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "generate_sync_client"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("method", CALLS)
async def test_every_call_has_a_deadline_an_id_and_the_token(
    kind: str, script: ScriptedServer, scripted_address: str, method: str
) -> None:
    tokens = iter(["first", "second"])
    async with opened(kind, scripted_address, timeout=50.0, token=lambda: next(tokens)) as client:
        await made(CALLS[method](client))
        await made(CALLS[method](client, timeout=5.0))
    usual, own = script.of(method)
    # gRPC sends rounded times, up.
    assert 5.5 < usual.remaining_s < 51
    assert 0 < own.remaining_s < 5.5
    assert usual.metadata["x-request-id"] != own.metadata["x-request-id"]
    assert [a.metadata["authorization"] for a in (usual, own)] == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize("method", CALLS)
async def test_what_was_not_served_is_repeated_where_that_is_safe(
    kind: str, script: ScriptedServer, scripted_address: str, method: str
) -> None:
    quickly = (("grpc-retry-pushback-ms", "1"),)
    script.failures[method].extend([Failure(UNAVAILABLE, quickly), Failure(grpc.StatusCode.CANCELLED, quickly)])
    async with opened(kind, scripted_address) as client:
        if method in ONCE:
            with pytest.raises(errors.Unavailable):
                await made(CALLS[method](client))
        else:
            await made(CALLS[method](client))
    attempts = script.of(method)
    assert len(attempts) == (1 if method in ONCE else 3)
    assert len({attempt.request for attempt in attempts}) == 1
    assert len({attempt.metadata["x-request-id"] for attempt in attempts}) == 1


async def test_a_server_that_wants_no_repeat_gets_none(
    kind: str, script: ScriptedServer, scripted_address: str
) -> None:
    script.failures["GetUser"].append(Failure(UNAVAILABLE, (("grpc-retry-pushback-ms", "-1"),)))
    async with opened(kind, scripted_address) as client:
        with pytest.raises(errors.Unavailable):
            await client.get_user("ada")
    assert len(script.of("GetUser")) == 1


async def test_events_without_an_id_get_one_and_the_callers_stay_as_they_are(
    kind: str, script: ScriptedServer, scripted_address: str
) -> None:
    mine = [Event(user_id="ada", type=LIKE, item_id="a"), Event(event_id="own", user_id="ada", type=LIKE, item_id="a")]
    async with opened(kind, scripted_address) as client:
        await client.record_events(mine)
        await client.record_events(mine)
    sent = [ranking.RecordEventsRequest.FromString(a.request).events for a in script.of("RecordEvents")]
    assert [events[1].event_id for events in sent] == ["own", "own"]
    assert len({events[0].event_id for events in sent} - {""}) == 2
    assert mine[0].event_id == ""


async def test_a_write_that_checks_revisions_does_not_conflict_with_its_own_repeat(
    kind: str, script: ScriptedServer, scripted_address: str
) -> None:
    quickly = (("grpc-retry-pushback-ms", "1"),)
    script.failures["UpsertItems"].append(Failure(UNAVAILABLE, quickly))
    script.failures["UpsertUsers"].append(Failure(UNAVAILABLE, quickly))
    async with opened(kind, scripted_address) as client:
        await client.upsert_items([Item(id="a")], check_revision=True)
        with pytest.raises(errors.Unavailable):  # the contract has no request id for users
            await client.upsert_users(User(id="ada"), check_revision=True)
        await client.upsert_items([Item(id="a")], check_revision=True)
    sent = [retrieval.UpsertItemsRequest.FromString(a.request).request_id for a in script.of("UpsertItems")]
    assert sent[0] == sent[1] != sent[2]
    assert all(sent)
    assert len(script.of("UpsertUsers")) == 1


async def test_no_answer_in_time_is_a_deadline(kind: str, script: ScriptedServer, scripted_address: str) -> None:
    script.hanging.add("GetUser")
    async with opened(kind, scripted_address) as client:
        with pytest.raises(errors.DeadlineExceeded):
            await client.get_user("ada", timeout=0.2)
        await client.recommend("ada")


async def test_a_call_waits_for_a_server_as_long_as_its_deadline_lasts(kind: str) -> None:
    async with opened(kind, "127.0.0.1:1") as client:
        with pytest.raises(errors.DeadlineExceeded):
            await client.get_user("ada", timeout=0.2)


async def test_calls_outlast_a_restart(client: Any, services: Services) -> None:
    await client.upsert_items([Item(id=f"i{n}", title=f"w{n}") for n in range(5)])
    session = client.session()
    over = asyncio.Event()
    recorded = 0

    async def record() -> None:
        nonlocal recorded
        while not over.is_set():
            await session.record_events(Event(user_id="ada", type=LIKE, item_id=f"i{recorded % 5}"))
            recorded += 1
            await asyncio.sleep(0.01)

    recording = asyncio.create_task(record())
    while not recorded:
        await asyncio.sleep(0.01)
    before = recorded
    await services.ranking.restart()
    over.set()
    await recording
    assert recorded > before
    assert (await session.get_user("ada")).event_count == recorded, "an event was lost or counted twice"


async def test_tls_with_a_certificate_of_ones_own(kind: str, script: ScriptedServer, tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    cert, key = ours.issue("server")
    mine, mine_key = ours.issue("client")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), cert.read_bytes())], ours.file.read_bytes(), require_client_auth=True
    )
    with running(script, credentials) as address:
        async with opened(kind, address, tls=Tls(ours.file, mine, mine_key), token="secret") as client:
            await client.get_user("ada")
        for tls in (Tls(ours.file), Tls(), None):
            async with opened(kind, address, tls=tls) as client:
                with pytest.raises((errors.Unavailable, errors.DeadlineExceeded)):
                    await client.get_user("ada", timeout=1)
    assert [a.metadata["authorization"] for a in script.attempts] == ["Bearer secret"]


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_token_does_not_leave_the_machine_in_plaintext(client: Any) -> None:
    with pytest.raises(ValueError, match="plaintext"):
        client("zhiyin.example:443", token="secret")
    client("zhiyin.example:443", token="secret", tls=Tls())
    client("zhiyin.example:443", token="secret", plaintext_token=True)


@pytest.mark.parametrize(
    ("target", "here"),
    [
        ("127.0.0.1:1", True), ("localhost:1", True), ("[::1]:1", True), ("unix:/run/x", True),
        ("dns:///localhost:1", True), ("ipv4:127.0.0.1:1,127.0.0.2:1", True), ("ipv4:127.0.0.1:1,10.0.0.1:1", False),
        ("10.0.0.1:1", False), ("127.evil.example:1", False), ("localhost.evil.example:1", False),
        ("dns:///ranking:1", False),
    ],
)  # fmt: skip
def test_what_is_on_this_machine(target: str, here: bool) -> None:
    assert is_loopback(target) is here
