"""Turns text into vectors by calling the encoder service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import grpc
import numpy as np
from numpy.typing import NDArray

from retrieval_service.centering import unit
from retrieval_service.conversions import matrix_from_proto
from service_runtime import request_context
from service_runtime.breaker import Breaker
from service_runtime.channels import dependency_error, readable_reply
from service_runtime.errors import DeadlineTooShort, DependencyUnavailable, Overloaded, ZhiyinError
from service_runtime.label_sets import LabelSet
from zhiyin.common.v1 import error_pb2
from zhiyin.encoder.v1 import encoder_service_pb2 as pb
from zhiyin.encoder.v1 import encoder_service_pb2_grpc as pb_grpc

# Up to so many passages go through the interactive lane: somebody waits for a small write.
_INTERACTIVE_PASSAGES = 16
_MAX_TEXTS_PER_BATCH = 128
# An answer names every label of every text, 10,000 at most; and a part of a long import must not fill the queue.
_CLASSIFIED_AT_ONCE = 32


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

    async def classify(self, labels: LabelSet, texts: Sequence[str]) -> list[dict[str, float]]:
        """The probability of each label for each text; at least one text."""
        ...


class EncoderClient:
    """The encoder service over gRPC. While it fails, one call for a few texts tries it at a time.

    Args:
        channel: To the encoder.
        timeout_s: Longest wait for a few texts, where the caller's own deadline is farther away.
        stall_s: Longest wait for the next batch of many texts.
    """

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float = 5.0, stall_s: float = 60.0) -> None:
        self._channel = channel
        self._stub = pb_grpc.EncoderServiceStub(channel)
        self._timeout_s, self._stall_s = timeout_s, stall_s
        self._limits: pb.GetLimitsResponse | None = None
        # Two: labels that take too long to encode must not keep texts from being encoded.
        self._breaker, self._classify_breaker = Breaker("encoder", timeout_s), Breaker("encoder", timeout_s)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def passages(self, texts: Sequence[str]) -> Encoded:
        """Vectors of what can be found; many texts go through the bulk lane.

        Raises:
            DependencyUnavailable: The encoder is down, too slow, or answers nonsense.
            Overloaded: It is full.
            DeadlineTooShort: The deadline passed.
        """
        if len(texts) <= _INTERACTIVE_PASSAGES:
            return await self._embed(texts, pb.TEXT_ROLE_PASSAGE)
        with self._failures():
            limits = await self._get_limits(self._timeout_s)
            cut = [_cut(text, limits.max_text_bytes) for text in texts]
            size = min(limits.max_texts_per_request, _MAX_TEXTS_PER_BATCH)
            parts = [part async for part in self._stream([text for text, _ in cut], size)]
        if len({part.fingerprint for part in parts}) > 1:
            raise DependencyUnavailable("encoder", "changed its model in the middle of a batch")
        if len({part.vectors.shape[1] for part in parts}) != 1:
            raise DependencyUnavailable("encoder", "sent no vectors, or vectors of several lengths")
        encoded = np.concatenate([part.vectors for part in parts])
        truncated = [t for part in parts for t in part.truncated]
        return _checked(Encoded(encoded, tuple(truncated), parts[0].fingerprint), cut)

    async def _stream(self, texts: Sequence[str], size: int) -> AsyncIterator[Encoded]:
        calls = self._stub.EmbedStream(
            _requests(texts, size), timeout=request_context.current().deadline.child_timeout()
        )
        try:
            while True:
                try:
                    reply = await asyncio.wait_for(calls.read(), self._stall_s)
                except TimeoutError:
                    raise DependencyUnavailable("encoder", "did not go on with a batch") from None
                if reply is grpc.aio.EOF:
                    return
                answer = readable_reply("encoder", cast(pb.EmbedStreamResponse | None, reply))
                if answer.WhichOneof("result") == "error":
                    raise _stream_error(answer.error)
                yield _encoded(answer.embedded)
        finally:
            calls.cancel()

    async def queries(self, texts: Sequence[str]) -> Encoded:
        """Vectors of what somebody looks for.

        Raises:
            DependencyUnavailable: The encoder is down, too slow, or answers nonsense.
            Overloaded: It is full.
            DeadlineTooShort: The deadline passed.
        """
        return await self._embed(texts, pb.TEXT_ROLE_QUERY)

    async def classify(self, labels: LabelSet, texts: Sequence[str]) -> list[dict[str, float]]:
        """The probability of each label for each text.

        Many texts are sent part by part: each with a far deadline, so the encoder lets whoever waits for a search go
        before.

        Raises:
            ZhiyinError: As `queries`.
        """
        few = len(texts) <= _INTERACTIVE_PASSAGES
        found: list[dict[str, float]] = []
        while len(found) < len(texts):
            timeout_s = request_context.current().deadline.child_timeout(self._timeout_s if few else self._stall_s)
            trying = self._classify_breaker.trying(timeout_s) if few else contextlib.nullcontext()
            with trying, self._failures():
                limits = await self._get_limits(timeout_s)
                size = min(limits.max_texts_per_request, _CLASSIFIED_AT_ONCE)
                part = [_cut(text, limits.max_text_bytes)[0] for text in texts[len(found) : len(found) + size]]
                reply = await self._stub.Classify(labels.question(part), timeout=timeout_s)
                found += labels.read(readable_reply("encoder", reply), len(part))
        return found

    async def _embed(self, texts: Sequence[str], role: pb.TextRole.ValueType) -> Encoded:
        timeout_s = request_context.current().deadline.child_timeout(self._timeout_s)
        with self._breaker.trying(timeout_s), self._failures():
            limits = await self._get_limits(timeout_s)
            cut = [_cut(text, limits.max_text_bytes) for text in texts]
            request = pb.EmbedRequest(texts=[text for text, _ in cut], role=role)
            encoded = _encoded(readable_reply("encoder", await self._stub.Embed(request, timeout=timeout_s)))
        return _checked(encoded, cut)

    async def _get_limits(self, timeout_s: float) -> pb.GetLimitsResponse:
        if self._limits is None:
            request = pb.GetLimitsRequest()
            limits = readable_reply("encoder", await self._stub.GetLimits(request, timeout=timeout_s))
            if limits.max_texts_per_request < 1 or limits.max_text_bytes < 1:
                raise DependencyUnavailable("encoder", "says that it takes no texts")
            self._limits = limits
        return self._limits

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """gRPC's errors as ours. After a failure the limits are asked anew: another encoder may have taken over."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            failure = dependency_error("encoder", error)
            if isinstance(failure, DependencyUnavailable):
                self._limits = None
            raise failure from error
        except DependencyUnavailable:
            self._limits = None
            raise


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


def _checked(encoded: Encoded, cut: Sequence[tuple[str, bool]]) -> Encoded:
    """The vectors of all texts, `truncated` where we or the encoder cut one."""
    if len(encoded.vectors) != len(cut) or len(encoded.truncated) != len(cut):
        raise DependencyUnavailable("encoder", f"sent {len(encoded.vectors)} vectors for {len(cut)} texts")
    truncated = tuple(theirs or ours for theirs, (_, ours) in zip(encoded.truncated, cut, strict=True))
    return Encoded(encoded.vectors, truncated, encoded.fingerprint)


def _cut(text: str, max_bytes: int) -> tuple[str, bool]:
    """The text within the encoder's limit, and whether it was cut. Models read far fewer tokens than that anyway."""
    raw = text.encode()
    return (text, False) if len(raw) <= max_bytes else (raw[:max_bytes].decode(errors="ignore"), True)


def _stream_error(error: error_pb2.BatchError) -> ZhiyinError:
    if error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]:
        return DeadlineTooShort(f"encoding: {error.message}")
    retry_after = error.retry_after.ToNanoseconds() / 1e9 if error.HasField("retry_after") else None
    if error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0] and retry_after is not None:
        return Overloaded("the encoder service", retry_after)
    return DependencyUnavailable("encoder", f"{error.reason}: {error.message}", retry_after_s=retry_after)
