"""Turns text into vectors by calling the encoder service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc
import numpy as np
from numpy.typing import NDArray

from retrieval_service.centering import unit
from retrieval_service.conversions import matrix_from_proto
from service_runtime import request_context
from service_runtime.channels import dependency_error
from service_runtime.errors import DeadlineTooShort, DependencyUnavailable, ZhiyinError
from zhiyin.common.v1 import error_pb2
from zhiyin.encoder.v1 import encoder_service_pb2 as pb
from zhiyin.encoder.v1 import encoder_service_pb2_grpc as pb_grpc

# Up to so many passages go through the interactive lane: somebody waits for a small write.
_INTERACTIVE_PASSAGES = 16
_MAX_TEXTS_PER_BATCH = 128


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors of some texts.

    Attributes:
        vectors: Shape (texts, dimensions), of length 1.
        truncated: Whether each text was cut.
        fingerprint: Of the space they live in.
    """

    vectors: NDArray[np.float32]
    truncated: tuple[bool, ...]
    fingerprint: str


class TextEncoder(Protocol):
    """What the service needs of an encoder."""

    async def passages(self, texts: Sequence[str]) -> Encoded:
        """Vectors of what can be found; at least one text."""
        ...

    async def queries(self, texts: Sequence[str]) -> Encoded:
        """Vectors of what somebody looks for; at least one text."""
        ...


class EncoderClient:
    """The encoder service over gRPC.

    Args:
        channel: To the encoder.
        bulk_timeout_s: How long a bulk call may take where the caller's own deadline is farther away.
    """

    def __init__(self, channel: grpc.aio.Channel, bulk_timeout_s: float = 600.0) -> None:
        self._channel = channel
        self._stub = pb_grpc.EncoderServiceStub(channel)
        self._bulk_timeout_s = bulk_timeout_s
        self._limits: pb.GetLimitsResponse | None = None

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def passages(self, texts: Sequence[str]) -> Encoded:
        """Vectors of what can be found; many texts go through the bulk lane.

        Raises:
            DependencyUnavailable: The encoder is down or full.
            DeadlineTooShort: The deadline passed.
        """
        if len(texts) <= _INTERACTIVE_PASSAGES:
            return await self._embed(texts, pb.TEXT_ROLE_PASSAGE)
        try:
            limits = await self._get_limits()
            cut = [_cut(text, limits.max_text_bytes) for text in texts]
            size = min(limits.max_texts_per_request, _MAX_TEXTS_PER_BATCH)
            parts: list[Encoded] = []
            calls = self._stub.EmbedStream(
                _requests([text for text, _ in cut], size),
                timeout=request_context.current().deadline.child_timeout(cap_s=self._bulk_timeout_s),
            )
            async for reply in calls:
                if reply.WhichOneof("result") == "error":
                    calls.cancel()
                    raise _stream_error(reply.error)
                parts.append(_encoded(reply.embedded))
        except grpc.aio.AioRpcError as error:
            raise dependency_error("encoder", error) from None
        if len({part.fingerprint for part in parts}) > 1:
            raise DependencyUnavailable("encoder", "changed its model in the middle of a batch")
        encoded = np.concatenate([part.vectors for part in parts])
        return _checked(
            Encoded(
                encoded,
                tuple(a or b for a, (_, b) in zip((t for p in parts for t in p.truncated), cut, strict=True)),
                parts[0].fingerprint,
            ),
            len(texts),
        )

    async def queries(self, texts: Sequence[str]) -> Encoded:
        """Vectors of what somebody looks for.

        Raises:
            DependencyUnavailable: The encoder is down or full.
            DeadlineTooShort: The deadline passed.
        """
        return await self._embed(texts, pb.TEXT_ROLE_QUERY)

    async def _embed(self, texts: Sequence[str], role: pb.TextRole.ValueType) -> Encoded:
        try:
            limits = await self._get_limits()
            cut = [_cut(text, limits.max_text_bytes) for text in texts]
            reply = await self._stub.Embed(
                pb.EmbedRequest(texts=[text for text, _ in cut], role=role),
                timeout=request_context.current().deadline.child_timeout(),
            )
        except grpc.aio.AioRpcError as error:
            raise dependency_error("encoder", error) from None
        encoded = _encoded(reply)
        truncated = tuple(a or b for a, (_, b) in zip(encoded.truncated, cut, strict=True))
        return _checked(Encoded(encoded.vectors, truncated, encoded.fingerprint), len(texts))

    async def _get_limits(self) -> pb.GetLimitsResponse:
        if self._limits is None:
            timeout = request_context.current().deadline.child_timeout(cap_s=5.0)
            self._limits = await self._stub.GetLimits(pb.GetLimitsRequest(), timeout=timeout)
        return self._limits


async def _requests(texts: Sequence[str], size: int) -> AsyncIterator[pb.EmbedStreamRequest]:
    for number, start in enumerate(range(0, len(texts), size)):
        yield pb.EmbedStreamRequest(batch_number=number, texts=texts[start : start + size], role=pb.TEXT_ROLE_PASSAGE)
        await asyncio.sleep(0)  # a large batch is serialised in parts, so that other calls get their turn


def _encoded(reply: pb.EmbedResponse) -> Encoded:
    try:
        raw = matrix_from_proto(reply.embeddings)
    except (ValueError, KeyError):
        raise DependencyUnavailable("encoder", "sent a matrix that is not what it says it is") from None
    if not np.isfinite(raw).all():
        raise DependencyUnavailable("encoder", "sent vectors with NaN or infinity")
    return Encoded(unit(raw), tuple(reply.truncated), reply.embeddings.space_fingerprint)


def _checked(encoded: Encoded, count: int) -> Encoded:
    if len(encoded.vectors) != count or len(encoded.truncated) != count:
        raise DependencyUnavailable("encoder", f"sent {len(encoded.vectors)} vectors for {count} texts")
    return encoded


def _cut(text: str, max_bytes: int) -> tuple[str, bool]:
    """The text within the encoder's limit, and whether it was cut. Models read far fewer tokens than that anyway."""
    raw = text.encode()
    return (text, False) if len(raw) <= max_bytes else (raw[:max_bytes].decode(errors="ignore"), True)


def _stream_error(error: error_pb2.BatchError) -> ZhiyinError:
    if error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]:
        return DeadlineTooShort(f"encoding: {error.message}")
    retry_after = error.retry_after.ToNanoseconds() / 1e9 if error.HasField("retry_after") else None
    return DependencyUnavailable("encoder", f"{error.reason}: {error.message}", retry_after_s=retry_after)
