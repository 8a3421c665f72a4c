"""The two services that the recommendation asks: a deadline and a cap on every call, errors translated."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from ranking_service.candidate import Floats, Halves
from ranking_service.intents.classification_cache import ClassificationCache
from ranking_service.vector_cache import TextVector, TextVectorCache
from service_runtime import request_context
from service_runtime.admission import Door
from service_runtime.breaker import Breaker
from service_runtime.channels import dependency_error, readable_reply
from service_runtime.errors import (
    DependencyUnavailable,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    Violation,
    ZhiyinError,
)
from service_runtime.label_sets import LabelSet
from zhiyin.common.v1.embedding_pb2 import VECTOR_DTYPE_FLOAT16, EmbeddingMatrix
from zhiyin.common.v1.filter_pb2 import Filter
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.encoder.v1 import encoder_service_pb2 as encoder_pb2
from zhiyin.encoder.v1.encoder_service_pb2_grpc import EncoderServiceStub
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb2
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceStub

# Thousands of words of labels are encoded in this time.
_LEARN_S = 60.0
# All of them set: NaN or infinity. By bytes of a component.
_EXPONENT_BITS: dict[int, np.unsignedinteger[Any]] = {2: np.uint16(0x7C00), 4: np.uint32(0x7F800000)}
_VECTOR_VIOLATION = re.compile(r"queries\[\d+\]\.vector")


class Encoder(Protocol):
    """Texts to vectors."""

    async def embed(self, texts: Sequence[str]) -> list[TextVector]:
        """The vectors of texts that say what somebody looks for or likes, in their order."""
        ...

    def forget(self) -> None:
        """Drops cached vectors: they are of another model than the catalogue's."""
        ...


class Retrieval(Protocol):
    """The catalogue and the search over it."""

    async def search(self, request: retrieval_pb2.SearchRequest) -> retrieval_pb2.SearchResponse:
        """Answers several queries over one state of the catalogue."""
        ...

    async def get_items(self, catalog: str, item_ids: Sequence[str], fields: Sequence[str]) -> dict[str, Item]:
        """Those of the items that exist, by id, with these fields."""
        ...

    async def list_items(
        self, catalog: str, condition: Filter | None, page_token: str, fields: Sequence[str]
    ) -> tuple[Sequence[Item], str]:
        """A page of at most 1,000 items in the order of their ids, and the token of the next page."""
        ...


class EncoderClient:
    """The encoder service behind caches of text vectors and classifications.

    While the encoder fails, one call at a time tries it, at most every half second; all others do without it at once
    instead of each waiting for it in vain and holding up those who need no encoder.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        cache: TextVectorCache,
        classified: ClassificationCache,
        timeout_s: float,
        reserve_s: float,
        door: Door,
    ) -> None:
        """`reserve_s` of the deadline is left for what comes after the encoder.

        Callers are inside of `door`, and outside while they wait for the encoder.
        """
        self._stub = EncoderServiceStub(channel)
        self._cache, self._classified = cache, classified
        self._timeout_s, self._reserve_s = timeout_s, reserve_s
        # Two: labels that take too long to encode must not keep texts from being encoded.
        self._breaker, self._classify_breaker = Breaker("encoder", timeout_s), Breaker("encoder", timeout_s)
        self._waits = _Waits(door)

    async def embed(self, texts: Sequence[str]) -> list[TextVector]:
        """As in `Encoder`. A warm text costs no call.

        Raises:
            ZhiyinError: DeadlineTooShort when the time does not allow a call; Overloaded when the encoder is;
                DependencyUnavailable when it fails or answers nonsense.
        """
        role = encoder_pb2.TEXT_ROLE_QUERY
        known = {text: self._cache.get(role, text) for text in texts}
        missing = [text for text, vector in known.items() if vector is None]
        if missing:
            timeout = request_context.current().deadline.child_timeout(self._timeout_s, margin_s=self._reserve_s)
            with self._breaker.trying(timeout):
                async with self._waits.outside():
                    vectors, fingerprint = await self._encode(missing, role, timeout)
            for text, vector in zip(missing, vectors, strict=True):
                encoded = TextVector(vector, fingerprint)
                self._cache.put(role, text, encoded)
                known[text] = encoded
        return [vector for text in texts if (vector := known[text]) is not None]

    async def _encode(
        self, texts: Sequence[str], role: encoder_pb2.TextRole.ValueType, timeout_s: float
    ) -> tuple[Floats, str]:
        request = encoder_pb2.EmbedRequest(texts=texts, role=role)
        try:
            reply = readable_reply("encoder", await self._stub.Embed(request, timeout=timeout_s))
        except grpc.aio.AioRpcError as error:
            raise dependency_error("encoder", error) from error
        vectors = checked_rows("encoder", reply.embeddings, len(texts))
        return vectors.astype(np.float32), reply.embeddings.space_fingerprint

    async def classify(self, labels: LabelSet, text: str) -> Mapping[str, float]:
        """The probability of each label. A warm text costs no call.

        Raises:
            ZhiyinError: As `embed`.
        """
        known = self._classified.get(labels.version, text)
        if known is not None:
            return known
        timeout = request_context.current().deadline.child_timeout(self._timeout_s, margin_s=self._reserve_s)
        with self._classify_breaker.trying(timeout):
            async with self._waits.outside():
                try:
                    answer = await self._stub.Classify(labels.question([text]), timeout=timeout)
                except grpc.aio.AioRpcError as error:
                    raise dependency_error("encoder", error) from error
            reply = readable_reply("encoder", answer)
            found = labels.read(reply, 1)[0]
        self._classified.put(labels.version, text, found, reply.space_fingerprint)
        return found

    async def learn(self, labels: LabelSet) -> None:
        """Has the encoder keep what it makes of the words of labels. For the background: it waits for long.

        Raises:
            ZhiyinError: As `embed`.
        """
        try:
            await self._stub.Classify(labels.question([labels.labels[0].name]), timeout=_LEARN_S)
        except grpc.aio.AioRpcError as error:
            raise dependency_error("encoder", error) from error

    def forget(self) -> None:
        """As in `Encoder`."""
        self._cache.clear()
        self._classified.clear()


@dataclass(slots=True)
class _Wait:
    place: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    calls: int = 0


class _Waits:
    """Requests that wait for the encoder. Each gives up its place inside of the door once, for all its calls."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._waits: dict[request_context.RequestContext, _Wait] = {}

    @contextlib.asynccontextmanager
    async def outside(self) -> AsyncIterator[None]:
        """Around one call of the present request."""
        request = request_context.current()
        wait = self._waits.get(request)
        if wait is None:
            wait = self._waits[request] = _Wait()
            await wait.place.enter_async_context(self._door.outside())
        wait.calls += 1
        try:
            yield
        finally:
            wait.calls -= 1
            if wait.calls == 0:
                del self._waits[request]
                await wait.place.aclose()


class RetrievalClient:
    """The retrieval service."""

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float) -> None:
        self._stub = RetrievalServiceStub(channel)
        self._timeout_s = timeout_s

    async def search(self, request: retrieval_pb2.SearchRequest) -> retrieval_pb2.SearchResponse:
        """As in `Retrieval`.

        Raises:
            ZhiyinError: NotFound for the catalogue, InvalidRequest for the caller's filter, FailedPrecondition when
                vectors are of another model, else DependencyUnavailable or DeadlineTooShort.
        """
        try:
            reply = readable_reply("retrieval", await self._stub.Search(request, timeout=self._timeout()))
        except grpc.aio.AioRpcError as error:
            raise _retrieval_error(error, request.catalog) from error
        check_search(reply)
        return reply

    async def label_faults(self, catalog: str, labels: Sequence[retrieval_pb2.NamedFilter]) -> list[Violation]:
        """What is wrong with filters, with paths as in a Search of these labels. Raises as `search` else."""
        request = retrieval_pb2.SearchRequest(catalog=catalog, labels=labels)
        try:
            readable_reply("retrieval", await self._stub.Search(request, timeout=self._timeout()))
        except grpc.aio.AioRpcError as error:
            found = error_details_pb2.BadRequest()
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT and _unpack(error, found):
                return [Violation(fault.field, fault.description) for fault in found.field_violations]
            raise _retrieval_error(error, catalog) from error
        return []

    async def get_catalog(self, catalog: str) -> None:
        """Asks whether there is a catalogue of that name.

        Raises:
            ZhiyinError: NotFound when there is none; else as `search`.
        """
        try:
            request = retrieval_pb2.GetCatalogRequest(catalog=catalog)
            readable_reply("retrieval", await self._stub.GetCatalog(request, timeout=self._timeout()))
        except grpc.aio.AioRpcError as error:
            raise _retrieval_error(error, catalog) from error

    async def get_items(self, catalog: str, item_ids: Sequence[str], fields: Sequence[str]) -> dict[str, Item]:
        """As in `Retrieval`. Raises as `search`."""
        request = retrieval_pb2.GetItemsRequest(
            catalog=catalog, item_ids=item_ids, read_mask=FieldMask(paths=sorted({"id", *fields}))
        )
        try:
            reply = readable_reply("retrieval", await self._stub.GetItems(request, timeout=self._timeout()))
        except grpc.aio.AioRpcError as error:
            raise _retrieval_error(error, catalog) from error
        return {item.id: item for item in reply.items}

    async def space_versions(self, catalog: str) -> set[tuple[str, int]]:
        """Names and versions of the spaces that a search may name. Raises as `search`."""
        found: set[tuple[str, int]] = set()
        token = ""
        while True:
            request = retrieval_pb2.ListSpaceVersionsRequest(catalog=catalog, page_token=token)
            try:
                reply = readable_reply(
                    "retrieval", await self._stub.ListSpaceVersions(request, timeout=self._timeout())
                )
            except grpc.aio.AioRpcError as error:
                raise _retrieval_error(error, catalog) from error
            found.update((version.space, version.version) for version in reply.space_versions)
            token = reply.next_page_token
            if not token:
                return found

    async def list_items(
        self, catalog: str, condition: Filter | None, page_token: str, fields: Sequence[str]
    ) -> tuple[Sequence[Item], str]:
        """As in `Retrieval`. Raises as `search`."""
        request = retrieval_pb2.ListItemsRequest(
            catalog=catalog,
            page_size=1000,
            page_token=page_token,
            filter=condition,
            read_mask=FieldMask(paths=sorted({"id", *fields})),
        )
        try:
            reply = readable_reply("retrieval", await self._stub.ListItems(request, timeout=self._timeout()))
        except grpc.aio.AioRpcError as error:
            raise _retrieval_error(error, catalog) from error
        return reply.items, reply.next_page_token

    def _timeout(self) -> float:
        return request_context.current().deadline.child_timeout(self._timeout_s)


def matrix_rows(matrix: EmbeddingMatrix) -> Floats:
    """Vectors off the wire as float32, shape (rows, dimensions)."""
    return _rows(matrix).astype(np.float32)


def half_rows(matrix: EmbeddingMatrix) -> Halves:
    """Vectors off the wire as float16, shape (rows, dimensions)."""
    return _rows(matrix).astype(np.float16, copy=False)


def checked_rows(dependency: str, matrix: EmbeddingMatrix, count: int) -> Floats | Halves:
    """Vectors of an answer that nobody has looked at yet, shape (count, dimensions).

    Raises:
        DependencyUnavailable: There are more or fewer, the bytes do not fit, or a component is NaN or infinite.
    """
    width = 2 if matrix.dtype == VECTOR_DTYPE_FLOAT16 else 4
    if matrix.rows != count or matrix.dimensions < 1 or len(matrix.data) != count * matrix.dimensions * width:
        raise DependencyUnavailable(
            dependency,
            f"sent {matrix.rows} vectors of {matrix.dimensions} dimensions in {len(matrix.data)} bytes where {count} "
            "vectors were due",
        )
    rows = _rows(matrix)
    # By the bits of the exponent: asking numpy takes six times as long of FLOAT16.
    exponent = _EXPONENT_BITS[width]
    if ((rows.view(exponent.dtype) & exponent) == exponent).any():
        raise DependencyUnavailable(dependency, "sent vectors with NaN or infinity")
    return rows


def _rows(matrix: EmbeddingMatrix) -> Floats | Halves:
    dtype = "<f2" if matrix.dtype == VECTOR_DTYPE_FLOAT16 else "<f4"
    return np.frombuffer(matrix.data, dtype=dtype).reshape(matrix.rows, matrix.dimensions)


def check_search(reply: retrieval_pb2.SearchResponse) -> None:
    """Everything after this counts on an answer whose parts fit together.

    Raises:
        DependencyUnavailable: They do not.
    """
    count = len(reply.items)
    if len({item.id for item in reply.items}) != count:
        raise DependencyUnavailable("retrieval", "sent an item twice")
    if any(len(result.item_indices) != len(result.scores) for result in reply.results):
        raise DependencyUnavailable("retrieval", "sent hits without scores")
    pointers = [reply.hydrated_indices, *(result.item_indices for result in reply.results)]
    pointers += [indices for label in reply.labels for indices in (label.item_indices, label.added_indices)]
    if any(max(indices, default=-1) >= count for indices in pointers):
        raise DependencyUnavailable("retrieval", "sent hits that point at no item")
    if not all(np.isfinite(np.array(result.scores)).all() for result in reply.results):
        raise DependencyUnavailable("retrieval", "sent scores with NaN or infinity")
    for matrix, rows in ((reply.item_vectors, count), (reply.query_vectors, len(reply.results))):
        if matrix.rows or matrix.data:
            checked_rows("retrieval", matrix, rows)


class SpaceGone(FailedPrecondition):
    """A derived space, or the version of it that a bundle was trained with, is not there (any more)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="SPACE_GONE")


def _retrieval_error(error: grpc.aio.AioRpcError, catalog: str) -> ZhiyinError:
    """Retrieval's answers that are our caller's business pass on; the rest means that retrieval cannot serve."""
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.NOT_FOUND and _reason(error) in ("SPACE_NOT_FOUND", "SPACE_VERSION_NOT_FOUND"):
        return SpaceGone(details)
    if code is grpc.StatusCode.NOT_FOUND:
        return NotFound("catalog", catalog)
    if code is grpc.StatusCode.INVALID_ARGUMENT and _VECTOR_VIOLATION.search(details):
        # The vectors are the encoder's, not our caller's.
        return FailedPrecondition(details, reason="SPACE_MISMATCH")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequest([Violation("filter", f"was refused by the catalogue: {details}")])
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        return FailedPrecondition(details, reason="SPACE_MISMATCH")
    return dependency_error("retrieval", error)


def _reason(error: grpc.aio.AioRpcError) -> str:
    """The stable reason that the details of an error name; empty when they name none."""
    info = error_details_pb2.ErrorInfo()
    return str(info.reason) if _unpack(error, info) else ""


def _unpack(error: grpc.aio.AioRpcError, detail: Message) -> bool:
    """Reads one kind of detail of an error; tells whether it has any."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return any(packed.Unpack(detail) for packed in status_pb2.Status.FromString(value).details)
            except DecodeError:
                return False  # not from one of ours
    return False
