"""The user RPCs as a client meets them: status codes, details, streams; nobody else needs to be up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from ranking_service.service import RankingService
from ranking_service.settings import RankingSettings
from service_runtime.server import running_server
from tests.ranking_service.user_side_harness import event
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub

NOBODY = "127.0.0.1:1"


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[RankingServiceStub]:
    settings = RankingSettings(
        port=0,
        data_dir=tmp_path,
        retrieval_address=NOBODY,
        encoder_address=NOBODY,
        retrieval_timeout_s=0.3,
        drain_delay_s=0,
        grace_s=1,
    )
    async with (
        running_server(RankingService(settings), settings) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield RankingServiceStub(channel)


def violations(error: grpc.aio.AioRpcError) -> set[str]:
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    found = error_details_pb2.BadRequest()
    assert any(detail.Unpack(found) for detail in status.details)
    return {violation.field for violation in found.field_violations}


async def test_events_are_recorded_while_nobody_else_is_up(stub: RankingServiceStub) -> None:
    request = pb.RecordEventsRequest(catalog="default", events=[event("ann", "LIKE", "a", event_id="e")])
    assert (await stub.RecordEvents(request, timeout=5)).recorded_count == 1
    assert (await stub.RecordEvents(request, timeout=5)).duplicate_count == 1
    request.events[0].item_id = "b"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.RecordEvents(request, timeout=5)
    assert error.value.code() == grpc.StatusCode.ALREADY_EXISTS
    request.catalog = "songs"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.RecordEvents(request, timeout=5)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_the_details_name_every_field(stub: RankingServiceStub) -> None:
    request = pb.RecordEventsRequest(catalog="default", events=[event("", "LIKE", "a"), event("ann", "RATING", "a")])
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.RecordEvents(request, timeout=5)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert violations(error.value) == {"events[0].user_id", "events[1].value"}


async def test_batches_flow_in_and_everything_flows_out(stub: RankingServiceStub) -> None:
    async def batches() -> AsyncIterator[pb.StreamEventsRequest]:
        for number in range(30):
            events = [event("ann", "LIKE", f"item-{number}-{i}", 1e9 + number * 100 + i) for i in range(100)]
            if number == 7:
                events[3].user_id = ""
            yield pb.StreamEventsRequest(batch_number=number, catalog="default", events=events)

    answers = [answer async for answer in stub.StreamEvents(batches(), timeout=30)]
    assert [answer.batch_number for answer in answers] == list(range(30))
    assert [answer.batch_number for answer in answers if answer.HasField("error")] == [7]
    sequences = [answer.recorded.sequence for answer in answers if answer.HasField("recorded")]
    assert sorted(sequences) == [100 * n for n in range(1, 30)]

    export = stub.ExportUser(pb.ExportUserRequest(catalog="default", user_id="ann"), timeout=30)
    parts = [part async for part in export]
    assert parts[0].user.event_count == 2_900
    items = [e.item_id for part in parts[1:] for e in part.events.events]
    assert items == [f"item-{n}-{i}" for n in range(30) if n != 7 for i in range(100)]

    gone = await stub.DeleteUser(pb.DeleteUserRequest(catalog="default", user_id="ann"), timeout=30)
    assert gone.deleted_event_count == 2_900
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.GetUser(pb.GetUserRequest(catalog="default", user_id="ann"), timeout=5)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_client_that_hangs_up_leaves_a_stream_of_whole_batches(stub: RankingServiceStub) -> None:
    call = stub.StreamEvents(timeout=30)
    for number in range(5):
        events = [event("bob", "LIKE", f"item-{i}") for i in range(50)]
        await call.write(pb.StreamEventsRequest(batch_number=number, catalog="default", events=events))
    first = await call.read()
    assert isinstance(first, pb.StreamEventsResponse)
    call.cancel()
    bob = await stub.GetUser(pb.GetUserRequest(catalog="default", user_id="bob"), timeout=5)
    assert bob.user.event_count >= 50
    assert bob.user.event_count % 50 == 0
