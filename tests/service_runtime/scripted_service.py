"""A service whose Embed does what a test says: the runtime is tested through it on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import grpc

from service_runtime.admission import Door
from service_runtime.grpc_types import ServicerContext
from zhiyin.encoder.v1 import encoder_service_pb2 as pb
from zhiyin.encoder.v1 import encoder_service_pb2_grpc as pb_grpc

Script = Callable[[pb.EmbedRequest], Awaitable[pb.EmbedResponse]]


async def answer(request: pb.EmbedRequest) -> pb.EmbedResponse:
    return pb.EmbedResponse(cached_count=len(request.texts))


class _Servicer(pb_grpc.EncoderServiceServicer):
    def __init__(self, service: ScriptedService) -> None:
        self._service = service

    async def Embed(self, request: pb.EmbedRequest, context: ServicerContext) -> pb.EmbedResponse:
        return await self._service.script(request)

    async def EmbedStream(
        self, requests: AsyncIterator[pb.EmbedStreamRequest], context: ServicerContext
    ) -> AsyncIterator[pb.EmbedStreamResponse]:
        async for request in requests:
            await self._service.script(pb.EmbedRequest(texts=request.texts))
            yield pb.EmbedStreamResponse(batch_number=request.batch_number)


class ScriptedService:
    name = "scripted"
    full_name = "zhiyin.encoder.v1.EncoderService"

    def __init__(self, script: Script = answer, start_s: float = 0.0) -> None:
        self.script = script
        self.start_s = start_s
        self.not_ready: str | None = None
        self.closed = False
        self.door_by_method: dict[str, Door] = {}

    async def start(self) -> None:
        await asyncio.sleep(self.start_s)

    def register(self, server: grpc.aio.Server) -> None:
        pb_grpc.add_EncoderServiceServicer_to_server(_Servicer(self), server)

    def readiness(self) -> str | None:
        return self.not_ready

    def doors(self) -> Mapping[str, Door]:
        return self.door_by_method

    async def close(self) -> None:
        self.closed = True
