"""A retrieval service in memory: the contract of Search by brute force, with centring, filters and availability."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import grpc
import numpy as np

from tests.ranking_service.fake_vectors import DIMENSIONS, FINGERPRINT, text_vector
from zhiyin.common.v1.embedding_pb2 import VECTOR_DTYPE_FLOAT16, EmbeddingMatrix
from zhiyin.common.v1.filter_pb2 import Filter
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb2
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import (
    RetrievalServiceServicer,
    add_RetrievalServiceServicer_to_server,
)


class FakeRetrieval(RetrievalServiceServicer):
    def __init__(self, *catalogs: str) -> None:
        self.catalogs: dict[str, dict[str, Item]] = {name: {} for name in (catalogs or ("default",))}
        self.searches: list[pb2.SearchRequest] = []
        self.down = False
        self.refused_field = ""
        self.refuses_attributes = False
        self.fingerprint = FINGERPRINT
        self.sequence = 0

    def put(self, *items: Item, catalog: str = "default") -> None:
        for item in items:
            stored = Item()
            stored.CopyFrom(item)
            self.sequence += 1
            known = self.catalogs[catalog].get(item.id)
            stored.revision = known.revision + 1 if known else 1
            stored.sequence = self.sequence
            if not stored.HasField("created_at"):
                stored.created_at.FromNanoseconds(time.time_ns())
            self.catalogs[catalog][item.id] = stored

    def register(self, server: grpc.aio.Server) -> None:
        add_RetrievalServiceServicer_to_server(self, server)

    async def GetCatalog(
        self, request: pb2.GetCatalogRequest, context: grpc.aio.ServicerContext
    ) -> pb2.GetCatalogResponse:
        await self._check(request.catalog, context)
        return pb2.GetCatalogResponse(catalog=pb2.Catalog(name=request.catalog))

    async def GetItems(self, request: pb2.GetItemsRequest, context: grpc.aio.ServicerContext) -> pb2.GetItemsResponse:
        await self._check(request.catalog, context)
        items = self.catalogs[request.catalog]
        return pb2.GetItemsResponse(
            items=[_masked(items[i], request.read_mask.paths) for i in request.item_ids if i in items],
            missing_item_ids=[i for i in request.item_ids if i not in items],
        )

    async def ListItems(
        self, request: pb2.ListItemsRequest, context: grpc.aio.ServicerContext
    ) -> pb2.ListItemsResponse:
        await self._check(request.catalog, context)
        items = self.catalogs[request.catalog]
        ids = sorted(i for i, item in items.items() if _matches(request.filter, item) and i > request.page_token)
        page = ids[: request.page_size or 100]
        return pb2.ListItemsResponse(
            items=[_masked(items[i], request.read_mask.paths) for i in page],
            next_page_token=page[-1] if len(page) < len(ids) else "",
        )

    async def Search(self, request: pb2.SearchRequest, context: grpc.aio.ServicerContext) -> pb2.SearchResponse:
        await self._check(request.catalog, context)
        self.searches.append(request)
        if not request.queries and not request.hydrate_item_ids and not request.labels:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "queries: is empty")
        for query in request.queries:
            fingerprint = query.vector.space_fingerprint
            if query.WhichOneof("input") == "vector" and fingerprint != self.fingerprint:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "space fingerprint differs")
        faults = [path for path, condition in _conditions(request) if _names(condition, self.refused_field)]
        if self.refused_field and faults:
            wrong = "; ".join(f"{path}.field_in: {self.refused_field} is a number" for path in faults)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"invalid request: {wrong}")
        if self.refuses_attributes and any(path.startswith("attributes.") for path in request.read_mask.paths):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "invalid request: read_mask: the reply is too large")
        items = self.catalogs[request.catalog]
        vectors = _centred({i: text_vector(f"{item.title} {item.text}") for i, item in items.items()})
        excluded = set(request.exclude_item_ids)
        now = time.time()
        allowed = [
            i
            for i, item in items.items()
            if i not in excluded
            and (request.include_unavailable or _available(item, now))
            and _matches(request.filter, item)
        ]
        reply = pb2.SearchResponse(sequence=self.sequence, space_versions={"semantic": 1})
        rows: dict[str, int] = {}
        query_vectors = []
        for query in request.queries:
            vector, examples, missing = _query_vector(query, items, vectors)
            query_vectors.append(vector)
            hits = []
            if vector.any():
                passing = [i for i in allowed if i not in examples and _matches(query.filter, items[i])]
                hits = sorted(((i, float(vectors[i] @ vector)) for i in passing), key=lambda hit: (-hit[1], hit[0]))
            hits = hits[: query.limit or 10]
            reply.results.add(
                name=query.name,
                item_indices=[rows.setdefault(i, len(rows)) for i, _ in hits],
                scores=[score for _, score in hits],
                missing_item_ids=missing,
            )
        permitted = set(allowed)
        for item_id in request.hydrate_item_ids:
            if item_id not in items:
                reply.missing_item_ids.append(item_id)
            elif item_id not in permitted:
                reply.filtered_item_ids.append(item_id)
            else:
                reply.hydrated_indices.append(rows.setdefault(item_id, len(rows)))
        for label in request.labels:
            matching = [i for i in allowed if _matches(label.filter, items[i])]
            best = sorted((i for i in matching if i not in rows), key=lambda i: (-items[i].prior, i))[: label.add]
            added = [rows.setdefault(i, len(rows)) for i in best]
            reply.labels.add(name=label.name, added_indices=added)
        for found, label in zip(reply.labels, request.labels, strict=True):
            found.item_indices.extend(row for i, row in rows.items() if _matches(label.filter, items[i]))
        reply.items.extend(_masked(items[i], request.read_mask.paths or ["id"]) for i in rows)
        if request.vectors_space:
            reply.item_vectors.CopyFrom(_matrix([vectors[i] for i in rows]))
            reply.query_vectors.CopyFrom(_matrix(query_vectors))
        return reply

    async def _check(self, catalog: str, context: grpc.aio.ServicerContext) -> None:
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the fake retrieval is down")
        if catalog not in self.catalogs:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"catalog {catalog!r} does not exist")


def _query_vector(query: pb2.SearchQuery, items: dict[str, Item], vectors: dict[str, np.ndarray]):
    if query.WhichOneof("input") == "vector":
        raw = np.frombuffer(query.vector.data, dtype="<f4")
        return _unit(raw - _mean(items)), set(), []
    examples = {entry.item_id: entry.weight for entry in query.examples.items}
    missing = [i for i in examples if i not in items]
    known = {i: weight for i, weight in examples.items() if i in items}
    if not any(weight > 0 for weight in known.values()):
        return np.zeros(DIMENSIONS, np.float32), set(examples), missing
    return _unit(sum(weight * vectors[i] for i, weight in known.items())), set(examples), missing


def _mean(items: dict[str, Item]) -> np.ndarray:
    if len(items) < 3:
        return np.zeros(DIMENSIONS, np.float32)
    return np.mean([text_vector(f"{item.title} {item.text}") for item in items.values()], axis=0)


def _centred(vectors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if len(vectors) < 3:
        return vectors
    mean = np.mean(list(vectors.values()), axis=0)
    return {i: _unit(vector - mean) for i, vector in vectors.items()}


def _unit(vector: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    return (vector / length if length > 1e-6 else np.zeros_like(vector)).astype(np.float32)


def _matrix(rows: list[np.ndarray]) -> EmbeddingMatrix:
    data = np.stack(rows).astype("<f2").tobytes() if rows else b""
    return EmbeddingMatrix(
        data=data, dtype=VECTOR_DTYPE_FLOAT16, rows=len(rows), dimensions=DIMENSIONS, space_fingerprint=FINGERPRINT
    )


def _available(item: Item, now: float) -> bool:
    if item.HasField("available") and not item.available:
        return False
    if item.HasField("available_from") and item.available_from.seconds > now:
        return False
    return not (item.HasField("available_until") and item.available_until.seconds <= now)


def _masked(item: Item, paths: Iterable[str]) -> Item:
    masked = Item(id=item.id)
    for path in paths or [field.name for field, _ in item.ListFields()]:
        for field, value in item.ListFields():
            if field.name == "attributes" and path.partition(".")[0] == "attributes":
                for name in item.attributes.keys() & {path.partition(".")[2] or name for name in item.attributes}:
                    masked.attributes[name].CopyFrom(item.attributes[name])
            elif field.name == path and path == "categories":
                masked.categories.extend(value)
            elif field.name == path and hasattr(value, "CopyFrom"):
                getattr(masked, path).CopyFrom(value)
            elif field.name == path:
                setattr(masked, path, value)
    return masked


def _matches(condition: Filter, item: Item) -> bool:
    kind = condition.WhichOneof("condition")
    if kind is None:
        return True
    if kind == "all_of":
        return all(_matches(part, item) for part in condition.all_of.filters)
    if kind == "any_of":
        return any(_matches(part, item) for part in condition.any_of.filters)
    if kind == "negated":
        return not _matches(condition.negated, item)
    if kind == "field_in":
        wanted = {value.string_value for value in condition.field_in.values}
        return bool(wanted & _words(item, condition.field_in.field))
    if kind == "time_range" and condition.time_range.field == "created_at":
        window = condition.time_range
        after = not window.HasField("from") or item.created_at.seconds >= getattr(window, "from").seconds
        return after and (not window.HasField("until") or item.created_at.seconds < window.until.seconds)
    raise NotImplementedError(f"the fake retrieval has no {kind} on this field")


def _words(item: Item, field: str) -> set[str]:
    if field == "categories":
        return set(item.categories)
    name = field.removeprefix("attributes.")
    if name != field:
        return {item.attributes[name].string_value} if name in item.attributes else set()
    return {getattr(item, field)}


def _conditions(request: pb2.SearchRequest) -> Iterator[tuple[str, Filter]]:
    """Every filter of a request that may be refused, and its path as the service names it."""
    yield from ((f"filter.all_of.filters[{i}]", part) for i, part in enumerate(request.filter.all_of.filters))
    yield from ((f"labels[{i}].filter", label.filter) for i, label in enumerate(request.labels))


def _names(condition: Filter, field: str) -> bool:
    kind = condition.WhichOneof("condition")
    if kind == "negated":
        return _names(condition.negated, field)
    if kind in ("all_of", "any_of"):
        return any(_names(part, field) for part in getattr(condition, kind).filters)
    return kind == "field_in" and condition.field_in.field == field
