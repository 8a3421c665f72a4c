"""The encoder service as the runtime runs it: load, batch, drain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import grpc

from encoder_service.batch_queue import BatchQueue
from encoder_service.conversions import effective_limits
from encoder_service.dynamic_batcher import DynamicBatcher, PendingText
from encoder_service.loading import LoadedModel, load_model
from encoder_service.servicer import EncoderServicer
from encoder_service.settings import EncoderSettings
from encoder_service.text_encoder import TextEncoder
from encoder_service.vector_cache import VectorCache
from service_runtime.admission import Door
from zhiyin.encoder.v1 import encoder_service_pb2_grpc


class EncoderService:
    """Text to vectors with one model.

    Args:
        settings: Of the service.
        load: Loads the model, in a thread; tests give a fake one.

    Attributes:
        servicer: The handlers.
    """

    name = "encoder"
    full_name = "zhiyin.encoder.v1.EncoderService"

    def __init__(self, settings: EncoderSettings, load: Callable[[EncoderSettings], LoadedModel] = load_model) -> None:
        self._settings, self._load = settings, load
        self.servicer = EncoderServicer(settings)
        self._batcher: DynamicBatcher | None = None
        self._encoder: TextEncoder | None = None

    async def start(self) -> None:
        """Loads and proves the model, then starts batching."""
        settings = self._settings
        model = await asyncio.to_thread(self._load, settings)
        queue = BatchQueue[PendingText](model.max_batch_tokens, model.max_queued_tokens)
        self._batcher = DynamicBatcher(model.backend, queue, model.manifest.pad_token_id, settings.max_wait_s)
        self._batcher.start(model.tokens_per_second)
        self._encoder = TextEncoder(model.tokenizer, self._batcher, VectorCache(settings.cache_bytes))
        limits = effective_limits(settings.max_texts_per_request, settings.max_text_bytes, model.manifest.dimensions)
        self.servicer.serve(model, self._encoder, limits)

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicer."""
        encoder_service_pb2_grpc.add_EncoderServiceServicer_to_server(self.servicer, server)

    def readiness(self) -> str | None:
        """Loaded, and the backend not failing batch after batch."""
        if self._batcher is None:
            return "the model is loading"
        return "the backend fails on every batch; see the log" if self._batcher.failing else None

    def doors(self) -> Mapping[str, Door]:
        """None: the queue of texts is the door, since texts differ in length by far."""
        return {}

    async def close(self) -> None:
        """Finishes what is queued."""
        if self._batcher is not None:
            await self._batcher.close()
        if self._encoder is not None:
            await asyncio.to_thread(self._encoder.close)
