"""What goes wrong has a class and says everything it knows."""

from __future__ import annotations

import re
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

import zhiyin_client
from tests.zhiyin_client.conftest import opened
from tests.zhiyin_client.scripted_server import Failure, ScriptedServer
from zhiyin_client import Event, EventType, Item, Targets, User, Violation, errors, refusals

LIKE = EventType.EVENT_TYPE_LIKE


async def test_an_invalid_request_names_every_violation(client: Any) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        await client.recommend("ada", page_size=1000, diversity=7.0, excluded_item_ids=[""])
    error = refused.value
    assert {violation.field for violation in error.violations} == {"page_size", "diversity", "excluded_item_ids[0]"}
    assert all(violation.description for violation in error.violations)
    assert (error.code, error.reason, error.method) == (
        grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "Recommend",
    )  # fmt: skip
    assert all(violation.field in str(error) for violation in error.violations)

    with pytest.raises(errors.InvalidRequest) as refused:
        await client.upsert_items([Item(id="a", title="w1"), Item(id="b"), Item(id="", title="w2")])
    assert {re.match(r"items\[\d\]", v.field)[0] for v in refused.value.violations} == {"items[1]", "items[2]"}  # type: ignore[index]


async def test_what_is_missing_or_there_already_is_named(client: Any) -> None:
    with pytest.raises(errors.NotFound) as missing:
        await client.get_user("nobody")
    assert (missing.value.resource, missing.value.reason) == (("user", "nobody"), "USER_NOT_FOUND")
    with pytest.raises(errors.NotFound) as missing:
        await client.in_catalog("no-such").recommend("ada")
    assert missing.value.resource.type == "catalog"
    await client.record_events(Event(event_id="e", user_id="ada", type=LIKE, item_id="i1"))
    await client.record_events(Event(event_id="e", user_id="ada", type=LIKE, item_id="i1"))
    with pytest.raises(errors.AlreadyExists) as exists:
        await client.record_events(Event(event_id="e", user_id="ada", type=LIKE, item_id="i2"))
    assert exists.value.resource == ("event", "e")


async def test_a_revision_that_is_not_the_stored_one_is_a_conflict(client: Any) -> None:
    await client.upsert_users(User(id="ada", profile="w1"), check_revision=True)
    with pytest.raises(errors.Conflict, match="REVISION_CONFLICT"):
        await client.upsert_users(User(id="ada", profile="w2"), check_revision=True)
    await client.upsert_items([Item(id="a", title="w1")], check_revision=True)
    with pytest.raises(errors.Conflict):
        await client.upsert_items([Item(id="a", title="w2")], check_revision=True)


async def test_vectors_of_another_model_are_refused_by_their_fingerprint(client: Any) -> None:
    await client.upsert_items([Item(id="a", title="w1")])
    with pytest.raises(errors.SpaceMismatch):
        await client.embed("w1", expected_space_fingerprint="another")
    made = await client.embed("w1")
    query = zhiyin_client.Query(vector=made.vectors[0], space_fingerprint=made.space_fingerprint)
    assert (await client.search(query)).hits[0].ids == ["a"]
    with pytest.raises(errors.SpaceMismatch):
        await client.search(zhiyin_client.Query(vector=made.vectors[0], space_fingerprint="another"))


async def test_a_refusal_with_a_hint_is_an_overload_and_one_without_is_a_limit(
    kind: str, script: ScriptedServer, scripted_address: str
) -> None:
    full = grpc.StatusCode.RESOURCE_EXHAUSTED
    script.failures["Recommend"].extend([Failure(full, (("grpc-retry-pushback-ms", "1500"),)), Failure(full)])
    async with opened(kind, scripted_address) as client:
        with pytest.raises(errors.Overloaded) as overloaded:
            await client.recommend("ada")
        assert overloaded.value.retry_after_s == 1.5
        with pytest.raises(errors.LimitReached):
            await client.recommend("ada")
        assert await client.recommend("ada") is not None
    assert len(script.of("Recommend")) == 3, "an overload is not added to by repeating"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, errors.AccessRefused),
        (grpc.StatusCode.PERMISSION_DENIED, errors.AccessRefused),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.FailedPrecondition),
        (grpc.StatusCode.INTERNAL, errors.ServiceFault),
        (grpc.StatusCode.UNIMPLEMENTED, errors.ServiceFault),
    ],
)
async def test_other_codes_have_their_class_and_the_id_that_the_logs_know(
    kind: str, script: ScriptedServer, scripted_address: str, code: grpc.StatusCode, expected: type[Exception]
) -> None:
    script.failures["GetUser"].append(Failure(code))
    async with opened(kind, scripted_address) as client:
        with pytest.raises(errors.ZhiyinError) as failed:
            await client.get_user("ada")
    assert type(failed.value) is expected
    assert failed.value.request_id == script.of("GetUser")[0].metadata["x-request-id"]


async def test_an_answer_that_is_no_message_is_a_fault_of_the_service(
    kind: str, script: ScriptedServer, scripted_address: str
) -> None:
    script.replies["GetUser"] = b"\x0a\xff\xff"
    async with opened(kind, scripted_address) as client:
        with pytest.raises(errors.ServiceFault):
            await client.get_user("ada")


async def test_a_service_without_a_target_is_named(kind: str, scripted_address: str) -> None:
    async with opened(kind, Targets(ranking=scripted_address)) as client:
        await client.get_user("ada")
        with pytest.raises(ValueError, match="no target for encoder"):
            await client.embed("w1")


def test_details_are_read_and_rubbish_is_survived() -> None:
    class Failed(grpc.RpcError):
        def __init__(self, data: bytes) -> None:
            self.data = data

        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.UNAVAILABLE

        def details(self) -> str:
            return "down"

        def trailing_metadata(self) -> Any:
            return (("grpc-status-details-bin", self.data), ("grpc-retry-pushback-ms", "x"))

    status = status_pb2.Status(code=14, message="down")
    for detail in (
        error_details_pb2.ErrorInfo(reason="STORE_FULL", domain="zhiyin"),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=5)),
        error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field="a", description="b")]
        ),
    ):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    read = refusals.from_rpc_error(Failed(status.SerializeToString()))
    assert (read.reason, read.retry_after_s, read.violations) == ("STORE_FULL", 5.0, (Violation("a", "b"),))
    assert read.is_temporary
    assert refusals.from_rpc_error(Failed(b"\xff\xff")) == refusals.Refusal(grpc.StatusCode.UNAVAILABLE, "down")


def test_the_error_tree_in_the_docstring_is_the_one_in_the_code() -> None:
    def below(kind: type[Exception]) -> set[str]:
        return {name for cls in kind.__subclasses__() for name in (cls.__name__, *below(cls))}

    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    assert drawn == below(errors.ZhiyinError)
    assert drawn <= set(zhiyin_client.__all__)
