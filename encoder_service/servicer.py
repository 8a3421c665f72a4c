"""The handlers of EncoderService: read the request, encode, answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from encoder_service.batch_queue import Lane
from encoder_service.classifier_cache import ClassifierCache
from encoder_service.classify_conversions import (
    MAX_LABEL_TEXTS,
    MAX_LABELS,
    answer_question,
    fit_question,
    read_question,
)
from encoder_service.conversions import Limits, read_request, to_response
from encoder_service.loading import LoadedModel
from encoder_service.settings import EncoderSettings
from encoder_service.text_encoder import TextEncoder
from service_runtime import request_context
from service_runtime.errors import NotReady, SpaceMismatch, ZhiyinError, to_batch_error
from service_runtime.grpc_types import ServicerContext
from service_runtime.ordered_stream import answered_in_order
from zhiyin.encoder.v1 import encoder_service_pb2 as pb
from zhiyin.encoder.v1 import encoder_service_pb2_grpc

# Some 600 sets of 15 labels with a vector of 384 components.
_CLASSIFIERS_BYTES = 32 << 20


class EncoderServicer(encoder_service_pb2_grpc.EncoderServiceServicer):
    """Answers calls once `serve` has been called.

    Args:
        settings: Limits and read-ahead.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        self._settings = settings
        self._classifiers = ClassifierCache(_CLASSIFIERS_BYTES if settings.cache_bytes else 0)
        self._serving: tuple[LoadedModel, TextEncoder, Limits] | None = None

    def serve(self, model: LoadedModel, encoder: TextEncoder, limits: Limits) -> None:
        """Gives the handlers what they need."""
        self._serving = model, encoder, limits

    async def Embed(self, request: pb.EmbedRequest, context: ServicerContext) -> pb.EmbedResponse:
        """A few texts for somebody who waits."""
        model, _, _ = self._ready()
        expected = request.expected_space_fingerprint
        if expected and expected != model.manifest.space_fingerprint:
            raise SpaceMismatch(expected, model.manifest.space_fingerprint)
        return await self._embed(request.texts, request.role, request.dtype, Lane.INTERACTIVE)

    async def EmbedStream(
        self, requests: AsyncIterator[pb.EmbedStreamRequest], context: ServicerContext
    ) -> AsyncIterator[pb.EmbedStreamResponse]:
        """Batch after batch: answers in the order of the requests, a few batches at once, reading on only with room."""
        self._ready()
        in_order = answered_in_order(requests, self._answer_batch, self._settings.stream_read_ahead)
        async with contextlib.aclosing(in_order):
            async for answer in in_order:
                yield answer

    async def Classify(self, request: pb.ClassifyRequest, context: ServicerContext) -> pb.ClassifyResponse:
        """Labels of the caller's own for a few texts."""
        model, encoder, limits = self._ready()
        deadline = request_context.current().deadline.at
        question = await asyncio.to_thread(read_question, request, limits)
        classifier = self._classifiers.get(question.labels_key)
        label_texts = question.label_texts() if classifier is None else []
        # As queries on both sides: a label and a text are alike, neither answers the other.
        encoded = await encoder.encode([*question.texts, *label_texts], "query", Lane.INTERACTIVE, deadline)
        count = len(question.texts)
        if classifier is None:
            label_vectors = encoded.texts[count:]
            classifier = await asyncio.to_thread(fit_question, question, label_vectors, model.default_temperature)
            self._classifiers.put(question.labels_key, classifier)
        fingerprint = model.manifest.space_fingerprint
        return await asyncio.to_thread(answer_question, question, encoded.texts[:count], classifier, fingerprint)

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: ServicerContext) -> pb.GetModelInfoResponse:
        """Which model serves."""
        model, _, _ = self._ready()
        manifest = model.manifest
        return pb.GetModelInfoResponse(
            model_name=manifest.name,
            space_fingerprint=manifest.space_fingerprint,
            build_fingerprint=model.build_fingerprint,
            dimensions=manifest.dimensions,
            max_tokens=manifest.max_tokens,
            pooling=manifest.pooling,
            normalized=manifest.normalized,
            prompts={str(role): prompt for role, prompt in manifest.prompts.items()},
            precision=manifest.precision,
            provider=model.backend.provider,
        )

    async def GetLimits(self, request: pb.GetLimitsRequest, context: ServicerContext) -> pb.GetLimitsResponse:
        """What a request may hold."""
        model, _, limits = self._ready()
        response = pb.GetLimitsResponse(
            max_texts_per_request=limits.max_texts,
            max_text_bytes=limits.max_text_bytes,
            max_queued_tokens=model.max_queued_tokens,
            max_message_bytes=self._settings.max_message_bytes,
            max_labels_per_request=MAX_LABELS,
            max_label_texts_per_request=MAX_LABEL_TEXTS,
        )
        response.default_deadline.FromMilliseconds(int(self._settings.default_deadline_s * 1000))
        return response

    def _ready(self) -> tuple[LoadedModel, TextEncoder, Limits]:
        if self._serving is None:
            raise NotReady("the encoder service is starting")
        return self._serving

    async def _answer_batch(self, request: pb.EmbedStreamRequest) -> pb.EmbedStreamResponse:
        response = pb.EmbedStreamResponse(batch_number=request.batch_number)
        try:
            embedded = await self._embed(request.texts, request.role, request.dtype, Lane.BULK)
            response.embedded.CopyFrom(embedded)
        except ZhiyinError as error:
            response.error.CopyFrom(to_batch_error(error))
        return response

    async def _embed(self, texts: Sequence[str], role: int, dtype: int, lane: Lane) -> pb.EmbedResponse:
        model, encoder, limits = self._ready()
        started = time.monotonic()
        text_role = read_request(texts, role, dtype, limits)
        deadline = request_context.current().deadline.at
        encoded = await encoder.encode(texts, text_role, lane, deadline)
        seconds = time.monotonic() - started
        return to_response(encoded, dtype, model.manifest.space_fingerprint, model.build_fingerprint, seconds)
