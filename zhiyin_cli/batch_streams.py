"""The BatchStreams of the import.

One bidirectional stream for items and events, several unary calls at once for users.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc
from zhiyin_cli.batch_sender import BatchAnswer
from zhiyin_cli.server_errors import Refusal, from_batch_error, from_rpc_error
from zhiyin_offline.rows.row_errors import ImportFailed

_USERS_DEADLINE_S = 60.0


class DuplexBatchStream:
    """Batches over a bidirectional stream.

    A lost connection turns into a temporary refusal of what was on its way, and the next batch opens a new stream:
    sending a batch again is safe, since items are replaced and events deduplicated by id.
    """

    def __init__(
        self,
        open_stream: Callable[[Iterator[Any]], Any],
        make_request: Callable[[int, list[Any]], Any],
        known_before: Callable[[Any], int] = lambda response: 0,
    ) -> None:
        self._open_stream = open_stream
        self._make_request = make_request
        self._known_before = known_before
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._responses: Any = None
        self._unanswered: list[int] = []
        self._lost: deque[BatchAnswer] = deque()

    def send(self, number: int, messages: list[Any]) -> None:
        """Hands over one batch, over a new stream if the last one broke."""
        if self._responses is None:
            self._requests = queue.SimpleQueue()
            self._responses = self._open_stream(iter(self._requests.get, None))
        self._unanswered.append(number)
        self._requests.put(self._make_request(number, messages))

    def receive(self) -> BatchAnswer:
        """Waits for the next answer. Raises ImportFailed when the server ended the stream for good."""
        if self._responses is not None and not self._lost:
            try:
                response = next(self._responses)
            except StopIteration:
                self._lose(Refusal(grpc.StatusCode.UNAVAILABLE, "the server ended the stream"))
            except grpc.RpcError as exc:
                self._lose(from_rpc_error(exc))
            else:
                self._unanswered.remove(response.batch_number)
                if response.HasField("error"):
                    return BatchAnswer(response.batch_number, from_batch_error(response.error))
                return BatchAnswer(response.batch_number, known_before=self._known_before(response))
        return self._lost.popleft()

    def close(self) -> None:
        """Ends the stream and abandons what was not answered."""
        self._requests.put(None)
        if self._responses is not None:
            self._responses.cancel()
            self._responses = None

    def _lose(self, refusal: Refusal) -> None:
        self.close()
        if not refusal.is_temporary:
            raise ImportFailed(f"the server ended the import: {refusal}")
        self._lost.extend(BatchAnswer(number, refusal) for number in self._unanswered)
        self._unanswered.clear()


class UnaryBatchStream:
    """Batches as unary calls, several on their way; answers come in the order of the calls."""

    def __init__(self, start_call: Callable[[list[Any]], Any]) -> None:
        self._start_call = start_call
        self._calls: deque[tuple[int, Any]] = deque()

    def send(self, number: int, messages: list[Any]) -> None:
        """Starts the call."""
        self._calls.append((number, self._start_call(messages)))

    def receive(self) -> BatchAnswer:
        """Waits for the oldest call."""
        number, call = self._calls.popleft()
        try:
            call.result()
        except grpc.RpcError as exc:
            return BatchAnswer(number, from_rpc_error(exc))
        return BatchAnswer(number)

    def close(self) -> None:
        """Abandons calls that were not answered."""
        for _, call in self._calls:
            call.cancel()


def item_stream(channel: grpc.Channel, catalog: str) -> DuplexBatchStream:
    """Items over RetrievalService.ImportItems."""
    stub = retrieval_grpc.RetrievalServiceStub(channel)
    return DuplexBatchStream(
        stub.ImportItems,
        lambda number, items: retrieval_pb2.ImportItemsRequest(batch_number=number, catalog=catalog, items=items),
    )


def event_stream(channel: grpc.Channel, catalog: str) -> DuplexBatchStream:
    """Events over RankingService.StreamEvents."""
    stub = ranking_grpc.RankingServiceStub(channel)
    return DuplexBatchStream(
        stub.StreamEvents,
        lambda number, events: ranking_pb2.StreamEventsRequest(batch_number=number, catalog=catalog, events=events),
        lambda response: int(response.recorded.duplicate_count),
    )


def user_stream(channel: grpc.Channel, catalog: str) -> UnaryBatchStream:
    """Users over RankingService.UpsertUsers."""
    stub = ranking_grpc.RankingServiceStub(channel)
    return UnaryBatchStream(
        lambda users: stub.UpsertUsers.future(
            ranking_pb2.UpsertUsersRequest(catalog=catalog, users=users), timeout=_USERS_DEADLINE_S
        )
    )
