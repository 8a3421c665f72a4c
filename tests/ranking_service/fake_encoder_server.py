"""An encoder that knows words only. Counts its calls; can be down, slow, or change its model."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np

from tests.ranking_service.fake_vectors import DIMENSIONS, FINGERPRINT, text_vector
from zhiyin.common.v1.embedding_pb2 import VECTOR_DTYPE_FLOAT32, EmbeddingMatrix
from zhiyin.encoder.v1 import encoder_service_pb2 as pb2
from zhiyin.encoder.v1.encoder_service_pb2_grpc import EncoderServiceServicer, add_EncoderServiceServicer_to_server


class FakeEncoder(EncoderServiceServicer):
    def __init__(self) -> None:
        self.calls = 0
        self.texts: list[str] = []
        self.down = False
        self.delay_s = 0.0
        self.fingerprint = FINGERPRINT

    async def Embed(self, request: pb2.EmbedRequest, context: grpc.aio.ServicerContext) -> pb2.EmbedResponse:
        self.calls += 1
        self.texts += request.texts
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the fake encoder is down")
        matrix = np.stack([text_vector(text) for text in request.texts])
        return pb2.EmbedResponse(
            embeddings=EmbeddingMatrix(
                data=matrix.astype("<f4").tobytes(),
                dtype=VECTOR_DTYPE_FLOAT32,
                rows=len(matrix),
                dimensions=DIMENSIONS,
                space_fingerprint=self.fingerprint,
            )
        )

    def register(self, server: grpc.aio.Server) -> None:
        add_EncoderServiceServicer_to_server(self, server)
