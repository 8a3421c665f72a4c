"""Many batches over one stream: several in work at once, answered in the order they came."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from service_runtime.errors import InvalidRequest, Overloaded, Violation, ZhiyinError, to_batch_error
from service_runtime.ordered_stream import answered_in_order
from zhiyin.ranking.v1 import ranking_service_pb2 as pb

Record = Callable[[pb.RecordEventsRequest], Awaitable[pb.RecordEventsResponse]]

# Batches read ahead of the oldest unanswered one; further ones wait in the caller, by gRPC's flow control.
_BATCHES_IN_WORK = 8


async def acknowledged_in_order(
    batches: AsyncIterator[pb.StreamEventsRequest], record: Record
) -> AsyncIterator[pb.StreamEventsResponse]:
    """Answers every batch, in order, with what it recorded or why it was refused.

    A full queue does not refuse a batch of a stream: the stream waits as long as it is told and tries again, and what
    the caller sends meanwhile waits with it. An error that is no domain error ends the stream.
    """

    async def with_catalog() -> AsyncIterator[tuple[pb.StreamEventsRequest, str]]:
        catalog = ""
        async for batch in batches:
            catalog = batch.catalog or catalog
            yield batch, catalog

    in_order = answered_in_order(with_catalog(), lambda each: _answer(*each, record), _BATCHES_IN_WORK)
    async with contextlib.aclosing(in_order):
        async for answer in in_order:
            yield answer


async def _answer(batch: pb.StreamEventsRequest, catalog: str, record: Record) -> pb.StreamEventsResponse:
    answer = pb.StreamEventsResponse(batch_number=batch.batch_number)
    try:
        if not catalog:
            raise InvalidRequest([Violation("catalog", "is empty; the first batch names the catalogue")])
        request = pb.RecordEventsRequest(catalog=catalog, events=batch.events)
        answer.recorded.CopyFrom(await _record_patiently(request, record))
    except ZhiyinError as error:
        answer.error.CopyFrom(to_batch_error(error))
    return answer


async def _record_patiently(request: pb.RecordEventsRequest, record: Record) -> pb.RecordEventsResponse:
    while True:
        try:
            return await record(request)
        except Overloaded as error:
            await asyncio.sleep(error.retry_after_s or 0.0)
