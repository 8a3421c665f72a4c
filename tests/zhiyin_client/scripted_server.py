"""A server that answers every method of every service as it is told, and remembers how it was called."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

EMPTY_REPLY = b""
"""Any message of proto3 without a field set."""


@dataclass
class Attempt:
    """One call as it arrived."""

    method: str
    request: bytes
    remaining_s: float
    metadata: dict[str, Any]


@dataclass
class Failure:
    """What a call fails with."""

    code: grpc.StatusCode
    trailers: tuple[tuple[str, str], ...] = ()


class ScriptedServer(grpc.GenericRpcHandler):
    """Fails the next calls of a method as `failures` says, hangs in those of `hanging`, and answers all others."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.failures: dict[str, deque[Failure]] = defaultdict(deque)
        self.replies: dict[str, bytes] = {}
        self.hanging: set[str] = set()
        self.refuses_streams: grpc.StatusCode | None = None

    def of(self, method: str) -> list[Attempt]:
        """The calls of a method."""
        return [attempt for attempt in self.attempts if attempt.method == method]

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method.startswith("/grpc.health."):
            return None  # unimplemented: the channel then counts the server as healthy
        method = handler_call_details.method.rpartition("/")[2]

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            remaining = context.time_remaining()
            metadata = dict(context.invocation_metadata())
            self.attempts.append(Attempt(method, request, remaining, metadata))  # type: ignore[arg-type]
            if self.failures[method]:
                failure = self.failures[method].popleft()
                context.set_trailing_metadata(failure.trailers)
                context.abort(failure.code, "as told")
            while method in self.hanging and context.is_active():
                time.sleep(0.01)
            return self.replies.get(method, EMPTY_REPLY)

        def refuse(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            remaining = context.time_remaining()
            self.attempts.append(Attempt(method, b"", remaining, dict(context.invocation_metadata())))  # type: ignore[arg-type]
            while method in self.hanging and context.is_active():
                time.sleep(0.01)
            assert self.refuses_streams is not None
            context.abort(self.refuses_streams, "as told")
            yield b""

        if self.refuses_streams is not None and method in ("ImportItems", "StreamEvents"):
            return grpc.stream_stream_rpc_method_handler(refuse)
        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def running(script: ScriptedServer, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """The address of a server that follows the script."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8), handlers=[script])
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()
