"""What carries the batches of an import to a server.

One bidirectional stream for items and events, several unary calls at once for users.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import grpc

from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb2
from zhiyin_client import methods
from zhiyin_client.aio.connection import Metadata
from zhiyin_client.aio.primitives import AsyncPendingCall, AsyncQueue
from zhiyin_client.bulk.batches import BatchAnswer, ImportStopped, Message
from zhiyin_client.refusals import Refusal, from_batch_error, from_rpc_error

_USERS_DEADLINE_S = 60.0
# A stream is no one call: as long as answers come, it is opened anew when its time is over.
STREAM_DEADLINE_S = 300.0
_IDLE = "STREAM_IDLE"
# What grpc.aio makes of a message that it could not send because the stream had ended: not the server's word.
_NOT_SENT = "Internal error from Core"


def _no_metadata() -> Metadata:
    return ()


class AsyncBatchStream(Protocol):
    """Carries batches to a server and brings back one answer for each, in any order."""

    async def send(self, number: int, messages: list[Message]) -> None:
        """Hands over one batch; does not wait for the answer."""

    async def receive(self) -> BatchAnswer:
        """Waits for the next answer."""


class AsyncDuplexBatchStream:
    """Batches over a bidirectional stream.

    A lost connection turns into a temporary refusal of what was on its way, and the next batch opens a new stream:
    sending a batch again is safe, since items are replaced and events deduplicated by id.
    """

    def __init__(
        self,
        open_stream: Callable[[AsyncIterator[Any]], Any],
        make_request: Callable[[int, list[Any]], Any],
        known_before: Callable[[Any], int] = lambda response: 0,
        on_response: Callable[[Any], None] = lambda response: None,
    ) -> None:
        self._open_stream = open_stream
        self._make_request = make_request
        self._known_before = known_before
        self._on_response = on_response
        self._requests: AsyncQueue[Any] = AsyncQueue()
        self._stream: Any = None
        self._responses: Any = None
        self._answered = False
        self._unanswered: list[int] = []
        self._lost: deque[BatchAnswer] = deque()

    async def send(self, number: int, messages: list[Message]) -> None:
        """Hands over one batch, over a new stream if the last one broke."""
        if self._stream is not None and not self._unanswered and self._stream.done():
            await self.close()  # it ended while there was nothing to send
        if self._stream is None:
            self._requests = AsyncQueue()
            self._stream = self._open_stream(_until_none(self._requests))
            self._responses = aiter(self._stream)
            self._answered = False
        self._unanswered.append(number)
        await self._requests.put(self._make_request(number, messages))

    async def receive(self) -> BatchAnswer:
        """Waits for the next answer. Raises ImportStopped when the server ended the stream for good."""
        if self._stream is not None and not self._lost:
            try:
                response = await anext(self._responses)
            except StopAsyncIteration:
                await self._lose(Refusal(grpc.StatusCode.UNAVAILABLE, "the server ended the stream"))
            except grpc.RpcError as exc:
                await self._lose(from_rpc_error(exc))
            else:
                self._answered = True
                self._unanswered.remove(response.batch_number)
                if response.HasField("error"):
                    return BatchAnswer(response.batch_number, from_batch_error(response.error))
                self._on_response(response)
                return BatchAnswer(response.batch_number, known_before=self._known_before(response))
        return self._lost.popleft()

    async def close(self) -> None:
        """Ends the stream and abandons what was not answered."""
        await self._requests.put(None)
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    async def _lose(self, refusal: Refusal) -> None:
        await self.close()
        if not self._may_open_anew(refusal):
            raise ImportStopped(f"the server ended the import: {refusal}")
        lost = refusal if refusal.is_temporary else Refusal(grpc.StatusCode.UNAVAILABLE, str(refusal))
        self._lost.extend(BatchAnswer(number, lost) for number in self._unanswered)
        self._unanswered.clear()

    def _may_open_anew(self, refusal: Refusal) -> bool:
        """Whether the same batches may fare better in another stream."""
        if refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return self._answered
        # CANCELLED: said by gRPC in the name of a server that stops. STREAM_IDLE: the rows came too slowly for it.
        lost = refusal.code is grpc.StatusCode.CANCELLED or refusal.message == _NOT_SENT
        return lost or refusal.is_temporary or refusal.reason == _IDLE


class AsyncUnaryBatchStream:
    """Batches as unary calls, several on their way; answers come in the order of the calls."""

    def __init__(self, start_call: Callable[[list[Any]], AsyncPendingCall]) -> None:
        self._start_call = start_call
        self._calls: deque[tuple[int, AsyncPendingCall]] = deque()

    async def send(self, number: int, messages: list[Message]) -> None:
        """Starts the call."""
        self._calls.append((number, self._start_call(messages)))

    async def receive(self) -> BatchAnswer:
        """Waits for the oldest call."""
        number, call = self._calls.popleft()
        try:
            await call.answer()
        except grpc.RpcError as exc:
            return BatchAnswer(number, from_rpc_error(exc))
        return BatchAnswer(number)

    async def close(self) -> None:
        """Abandons calls that were not answered."""
        for _, call in self._calls:
            call.cancel()


def item_stream(
    channel: Any,
    catalog: str,
    metadata: Callable[[], Metadata] = _no_metadata,
    on_response: Callable[[Any], None] = lambda response: None,
) -> AsyncDuplexBatchStream:
    """Items over RetrievalService.ImportItems."""
    method = methods.IMPORT_ITEMS.on(channel, "stream_stream")
    return AsyncDuplexBatchStream(
        _opener(method, metadata),
        lambda number, items: retrieval_pb2.ImportItemsRequest(batch_number=number, catalog=catalog, items=items),
        on_response=on_response,
    )


def event_stream(
    channel: Any,
    catalog: str,
    metadata: Callable[[], Metadata] = _no_metadata,
    on_response: Callable[[Any], None] = lambda response: None,
) -> AsyncDuplexBatchStream:
    """Events over RankingService.StreamEvents."""
    method = methods.STREAM_EVENTS.on(channel, "stream_stream")
    return AsyncDuplexBatchStream(
        _opener(method, metadata),
        lambda number, events: ranking_pb2.StreamEventsRequest(batch_number=number, catalog=catalog, events=events),
        lambda response: int(response.recorded.duplicate_count),
        on_response,
    )


def user_stream(channel: Any, catalog: str, metadata: Callable[[], Metadata] = _no_metadata) -> AsyncUnaryBatchStream:
    """Users over RankingService.UpsertUsers."""
    method = methods.UPSERT_USERS.on(channel)
    return AsyncUnaryBatchStream(
        lambda users: AsyncPendingCall(
            method, ranking_pb2.UpsertUsersRequest(catalog=catalog, users=users), _USERS_DEADLINE_S, metadata()
        )
    )


def _opener(method: Any, metadata: Callable[[], Metadata]) -> Callable[[AsyncIterator[Any]], Any]:
    # The import waits for a server itself, with an end to its patience.
    return lambda requests: method(requests, timeout=STREAM_DEADLINE_S, metadata=metadata(), wait_for_ready=False)


async def _until_none(requests: AsyncQueue[Any]) -> AsyncIterator[Any]:
    while (request := await requests.get()) is not None:
        yield request
