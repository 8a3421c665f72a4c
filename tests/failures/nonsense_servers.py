"""Servers on real ports that are reachable and wrong: they refuse, or answer what no sane neighbour would."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import numpy as np

from tests.retrieval_service.fake_encoder_server import FakeEncoder
from zhiyin.common.v1 import embedding_pb2
from zhiyin.encoder.v1 import encoder_service_pb2 as encoder_pb
from zhiyin.encoder.v1 import encoder_service_pb2_grpc as encoder_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb

Answer = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


class AnySingleMethod(grpc.GenericRpcHandler):
    """Answers every method, streams too, with bytes."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method.startswith("/grpc."):
            return None  # no health service: taken for healthy
        if details.method.endswith("Stream"):
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _stream(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await self._answer(request, context)


async def refuses(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "told to refuse")
    raise AssertionError


async def is_overloaded(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "told to be full", (("grpc-retry-pushback-ms", "700"),))
    raise AssertionError


async def has_a_bug(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
    await context.abort(grpc.StatusCode.INTERNAL, "told to fail")
    raise AssertionError


async def sends_no_message(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
    return b"\xff\xff\xff\xff this is no protobuf"


async def points_at_nothing(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
    """A well-formed SearchResponse whose hits point beyond its items."""
    reply = retrieval_pb.SearchResponse()
    reply.items.add(id="only")
    reply.results.add(name="query", item_indices=[7], scores=[0.5])
    reply.hydrated_indices.append(9)
    return reply.SerializeToString()


async def scores_with_nan(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
    """A SearchResponse with NaN as score and as vector."""
    reply = retrieval_pb.SearchResponse()
    reply.items.add(id="only")
    reply.results.add(name="query", item_indices=[0], scores=[float("nan")])
    reply.item_vectors.CopyFrom(_matrix(np.full((1, 48), np.nan, np.float32), "fake-space-1"))
    return reply.SerializeToString()


class TwistedEncoder(FakeEncoder):
    """An encoder whose vectors went through `twist` on their way out."""

    def __init__(self, twist: Callable[[Any], Any], fingerprint: str = "fake-space-1") -> None:
        super().__init__(fingerprint)
        self._twist = twist

    def _response(self, texts: Any) -> encoder_pb.EmbedResponse:
        honest = super()._response(texts)
        shape = (honest.embeddings.rows, honest.embeddings.dimensions)
        vectors = np.frombuffer(honest.embeddings.data, "<f4").reshape(shape)
        honest.embeddings.CopyFrom(_matrix(self._twist(vectors), self.fingerprint))
        return honest


def _matrix(vectors: Any, fingerprint: str) -> embedding_pb2.EmbeddingMatrix:
    return embedding_pb2.EmbeddingMatrix(
        data=np.ascontiguousarray(vectors, "<f4").tobytes(),
        dtype=embedding_pb2.VECTOR_DTYPE_FLOAT32,
        rows=vectors.shape[0],
        dimensions=vectors.shape[1],
        space_fingerprint=fingerprint,
    )


def with_nan(vectors: Any) -> Any:
    return np.where(np.arange(vectors.shape[1]) == 3, np.nan, vectors)


def of_other_length(vectors: Any) -> Any:
    return vectors[:, :-8]


def one_too_few(vectors: Any) -> Any:
    return vectors[:-1]


def untouched(vectors: Any) -> Any:
    return vectors


@contextlib.asynccontextmanager
async def serving(*, answer: Answer | None = None, encoder: FakeEncoder | None = None) -> AsyncIterator[str]:
    """One of the two on a free port; yields its address."""
    server = grpc.aio.server()
    if answer is not None:
        server.add_generic_rpc_handlers((AnySingleMethod(answer),))
    if encoder is not None:
        encoder_grpc.add_EncoderServiceServicer_to_server(encoder, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
