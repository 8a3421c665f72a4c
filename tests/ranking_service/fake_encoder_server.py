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
        self.classified: list[str] = []
        self.labels_read: list[str] = []
        self.classify_down = False
        self.classify_delay_s = 0.0
        self.nonsense: pb2.ClassifyResponse | None = None
        self.at_once = self.most_at_once = 0

    async def Embed(self, request: pb2.EmbedRequest, context: grpc.aio.ServicerContext) -> pb2.EmbedResponse:
        self.calls += 1
        self.texts += request.texts
        await self._wait(self.delay_s)
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

    async def Classify(self, request: pb2.ClassifyRequest, context: grpc.aio.ServicerContext) -> pb2.ClassifyResponse:
        """A label is as probable as its descriptions are like the text."""
        # With the name of a label the service only has the labels read.
        self.classified += [text for text in request.texts if text != request.labels[0].id]
        self.labels_read += [text for text in request.texts if text == request.labels[0].id]
        await self._wait(self.classify_delay_s)
        if self.down or self.classify_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the fake encoder is down")
        if self.nonsense is not None:
            return self.nonsense
        directions = np.stack([text_vector(" ".join(label.descriptions)) for label in request.labels])
        reply = pb2.ClassifyResponse(temperature=0.2, space_fingerprint=self.fingerprint)
        for text in request.texts:
            powers = np.exp(directions @ text_vector(text) / 0.2)
            scores = zip(request.labels, powers / powers.sum(), strict=True)
            listed = [pb2.LabelScore(id=label.id, probability=p) for label, p in scores if p >= request.min_probability]
            reply.classifications.add(labels=sorted(listed, key=lambda score: -score.probability))
        return reply

    async def _wait(self, seconds: float) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(seconds)
        self.at_once -= 1

    def register(self, server: grpc.aio.Server) -> None:
        add_EncoderServiceServicer_to_server(self, server)
