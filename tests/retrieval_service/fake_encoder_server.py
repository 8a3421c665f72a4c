"""An encoder that needs no model and keeps the contract: EncoderService on a real port, with vectors made from words.

Each word has a direction of its own; a text is the sum of its words, pushed into a narrow cone as contrastive encoders
do (cosines around .85), so that centring has something to mend. Equal texts get equal vectors.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import AsyncIterator, Sequence

import grpc
import numpy as np
from numpy.typing import NDArray

from zhiyin.common.v1 import embedding_pb2, error_pb2
from zhiyin.encoder.v1 import encoder_service_pb2 as pb
from zhiyin.encoder.v1 import encoder_service_pb2_grpc as pb_grpc

DIMENSIONS = 48
_WORD = re.compile(r"[a-z0-9]+|[一-鿿]")


@functools.lru_cache(maxsize=100_000)
def _direction(word: str) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
    vector = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
    return vector / np.linalg.norm(vector)


_CONE = _direction("what all texts share")


def embed(text: str) -> NDArray[np.float32]:
    """The vector of a text, shape (DIMENSIONS,), length 1."""
    words = _WORD.findall(text.lower()) or [text]
    own = np.sum([_direction(word) for word in words], axis=0)
    own = own / max(float(np.linalg.norm(own)), 1e-6)
    vector = 2.4 * _CONE + own
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class FakeEncoder(pb_grpc.EncoderServiceServicer):
    """Answers as the contract says; counts what it is asked."""

    def __init__(self, fingerprint: str = "fake-space-1", max_texts: int = 64, max_text_bytes: int = 16_384) -> None:
        self.fingerprint = fingerprint
        self.max_texts, self.max_text_bytes = max_texts, max_text_bytes
        self.texts_encoded: list[str] = []
        self.failure: grpc.StatusCode | None = None
        self.classify_failure: grpc.StatusCode | None = None
        self.classified: list[str] = []
        self.classify_calls = 0

    def _response(self, texts: Sequence[str]) -> pb.EmbedResponse:
        self.texts_encoded.extend(texts)
        matrix = np.stack([embed(text) for text in texts])
        return pb.EmbedResponse(
            embeddings=embedding_pb2.EmbeddingMatrix(
                data=matrix.astype("<f4").tobytes(),
                dtype=embedding_pb2.VECTOR_DTYPE_FLOAT32,
                rows=len(texts),
                dimensions=DIMENSIONS,
                space_fingerprint=self.fingerprint,
            ),
            token_counts=[len(_WORD.findall(text.lower())) for text in texts],
            truncated=[len(_WORD.findall(text.lower())) > 400 for text in texts],
            build_fingerprint=f"{self.fingerprint}/fake",
        )

    async def Embed(self, request: pb.EmbedRequest, context: grpc.aio.ServicerContext) -> pb.EmbedResponse:
        if self.failure is not None:
            await context.abort(self.failure, "told to fail")
        if not 1 <= len(request.texts) <= self.max_texts:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too many or no texts")
        if any(len(t.encode()) > self.max_text_bytes or not t.strip() for t in request.texts):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a blank or long text")
        if request.expected_space_fingerprint not in ("", self.fingerprint):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "another space")
        return self._response(request.texts)

    async def EmbedStream(
        self, request_iterator: AsyncIterator[pb.EmbedStreamRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.EmbedStreamResponse]:
        async for request in request_iterator:
            response = pb.EmbedStreamResponse(batch_number=request.batch_number)
            if self.failure is not None:
                response.error.CopyFrom(
                    error_pb2.BatchError(code=self.failure.value[0], reason="FAILED", message="told to fail")
                )
            elif not 1 <= len(request.texts) <= self.max_texts:
                response.error.CopyFrom(error_pb2.BatchError(code=3, reason="INVALID_REQUEST", message="count"))
            else:
                response.embedded.CopyFrom(self._response(request.texts))
            yield response

    async def Classify(self, request: pb.ClassifyRequest, context: grpc.aio.ServicerContext) -> pb.ClassifyResponse:
        """A label is as probable as many of its words are in the text; all labels are where none has any."""
        self.classify_calls += 1
        failure = self.failure or self.classify_failure
        if failure is not None:
            await context.abort(failure, "told to fail")
        if not 1 <= len(request.texts) <= self.max_texts or any(not text.strip() for text in request.texts):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too many texts, none, or a blank one")
        self.classified.extend(request.texts)
        reply = pb.ClassifyResponse(temperature=1, space_fingerprint=self.fingerprint)
        for text in request.texts:
            words = set(_WORD.findall(text.lower()))
            shared = [sum(w in words for d in label.descriptions for w in _WORD.findall(d)) for label in request.labels]
            total = sum(shared)
            scores = [
                pb.LabelScore(id=label.id, probability=count / total if total else 1 / len(shared))
                for label, count in zip(request.labels, shared, strict=True)
            ]
            reply.classifications.add(labels=sorted(scores, key=lambda score: (-score.probability, score.id)))
        return reply

    async def GetLimits(self, request: pb.GetLimitsRequest, context: grpc.aio.ServicerContext) -> pb.GetLimitsResponse:
        return pb.GetLimitsResponse(max_texts_per_request=self.max_texts, max_text_bytes=self.max_text_bytes)

    async def GetModelInfo(
        self, request: pb.GetModelInfoRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetModelInfoResponse:
        return pb.GetModelInfoResponse(space_fingerprint=self.fingerprint, dimensions=DIMENSIONS, normalized=True)


@contextlib.asynccontextmanager
async def running_fake_encoder(encoder: FakeEncoder) -> AsyncIterator[str]:
    """Serves a fake on a free port of this process; yields its address."""
    server = grpc.aio.server()
    pb_grpc.add_EncoderServiceServicer_to_server(encoder, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
