"""Reads requests of the contract into the domain, with every violation at once.

What exceeds the count that a list may have is refused unread: a wrong request must not cost more than a
right one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from retrieval_service import conversions
from retrieval_service.centering import unit
from retrieval_service.directory import Label
from retrieval_service.filters import Filter
from retrieval_service.item_cache import Hidden
from retrieval_service.named_spaces import SEMANTIC
from retrieval_service.search import SearchInput, VectorQuery
from retrieval_service.write_messages import DeleteBatch, UpsertBatch
from service_runtime.validation import Violations
from zhiyin.common.v1 import filter_pb2, item_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb

MAX_QUERIES, MAX_HITS, DEFAULT_HITS = 32, 1000, 10
MAX_HYDRATED, MAX_EXCLUDED, MAX_EXAMPLES = 4000, 10_000, 256
MAX_LABELS, MAX_LABEL_NAME_BYTES, MAX_ADDED = 256, 128, 100
MAX_PAGE, DEFAULT_PAGE, MAX_GET = 1000, 100, 1000
MAX_QUERY_BYTES = 32 << 10
MAX_REQUEST_ID_BYTES = 128
MAX_DISPLAY_NAME_BYTES = 256
MAX_STORED_NUMBER = (1 << 63) - 1
_CATALOG_SETTINGS = ("display_name", "max_items")


class _WithFilter(Protocol):
    @property
    def filter(self) -> filter_pb2.Filter: ...


@dataclass(frozen=True, slots=True)
class SearchPlanInput:
    """A checked Search whose texts are not encoded yet.

    Attributes:
        search: The rest; queries by text have no vector.
        texts: Texts by position of their query.
        min_sequence: State to wait for; 0: none.
    """

    search: SearchInput
    texts: dict[int, str]
    min_sequence: int


def read_upsert(
    catalog: str,
    items: Sequence[item_pb2.Item],
    max_items: int,
    request: pb.UpsertItemsRequest | pb.ImportItemsRequest,
) -> UpsertBatch:
    """A batch of items.

    Raises:
        InvalidRequest: With everything wrong with it.
    """
    violations = Violations()
    violations.check_catalog("catalog", catalog)
    violations.check_count("items", len(items), 1, max_items)
    mask, check_revision, request_id, request_hash = None, False, "", b""
    if isinstance(request, pb.UpsertItemsRequest):
        check_revision, request_id = request.check_revision, request.request_id
        if request.HasField("update_mask"):
            conversions.check_update_mask(violations, request.update_mask)
            mask = frozenset(request.update_mask.paths)
        if request_id:
            violations.check_id("request_id", request_id, MAX_REQUEST_ID_BYTES)
            request_hash = _hash(request)
    seen: dict[str, int] = {}
    for i, item in enumerate(items[:max_items]):
        conversions.check_item(violations, f"items[{i}]", item, whole=mask is None)
        first = seen.setdefault(item.id, i)
        if first != i and item.id:
            violations.add(f"items[{i}].id", f"is that of items[{first}]; ids in a batch differ")
    violations.raise_if_any()
    read = tuple(conversions.item_from_proto(item) for item in items)
    return UpsertBatch(catalog, read, mask, check_revision, request_id, request_hash, request.ByteSize())


def read_delete(request: pb.DeleteItemsRequest, max_items: int) -> DeleteBatch:
    """Ids to delete.

    Raises:
        InvalidRequest: With everything wrong with it.
    """
    violations = Violations()
    violations.check_catalog("catalog", request.catalog)
    violations.check_count("item_ids", len(request.item_ids), 1, max_items)
    for i, item_id in enumerate(request.item_ids[:max_items]):
        violations.check_id(f"item_ids[{i}]", item_id)
    if request.request_id:
        violations.check_id("request_id", request.request_id, MAX_REQUEST_ID_BYTES)
    violations.raise_if_any()
    request_hash = _hash(request) if request.request_id else b""
    ids = tuple(request.item_ids)
    return DeleteBatch(request.catalog, ids, request.request_id, request_hash, request.ByteSize())


def check_catalog_settings(violations: Violations, catalog: pb.Catalog) -> None:
    """What can be set about a catalogue."""
    violations.check_text("catalog.display_name", catalog.display_name, MAX_DISPLAY_NAME_BYTES)
    if catalog.max_items > MAX_STORED_NUMBER:
        violations.add("catalog.max_items", f"is {catalog.max_items}; at most {MAX_STORED_NUMBER} is possible")


def read_catalog_update(request: pb.UpdateCatalogRequest) -> dict[str, Any]:
    """The settings that change, by name.

    Raises:
        InvalidRequest: With everything wrong with it.
    """
    violations = Violations()
    violations.check_catalog("catalog.name", request.catalog.name)
    check_catalog_settings(violations, request.catalog)
    paths = request.update_mask.paths if request.HasField("update_mask") else _CATALOG_SETTINGS
    for i, path in enumerate(paths):
        if path not in _CATALOG_SETTINGS:
            violations.add(f"update_mask.paths[{i}]", f"can only be {' or '.join(_CATALOG_SETTINGS)}")
    if not paths:
        violations.add("update_mask", "names nothing to change")
    violations.raise_if_any()
    return {path: getattr(request.catalog, path) for path in paths}


def read_ids(violations: Violations, field: str, ids: Sequence[str], low: int, high: int) -> tuple[str, ...]:
    """A list of item ids."""
    violations.check_count(field, len(ids), low, high)
    for i, item_id in enumerate(ids[:high]):
        violations.check_id(f"{field}[{i}]", item_id)
    return tuple(ids)


def read_mask(violations: Violations, request: pb.GetItemsRequest | pb.ListItemsRequest) -> Hidden:
    """The fields that a read mask leaves out; no mask: none."""
    if not request.HasField("read_mask"):
        return ()
    conversions.check_read_mask(violations, "read_mask", request.read_mask)
    return conversions.hidden_fields(request.read_mask.paths)


def read_page_size(violations: Violations, page_size: int) -> int:
    """Entries a page."""
    if page_size > MAX_PAGE:
        violations.add("page_size", f"is {page_size}; at most {MAX_PAGE} are allowed")
    return page_size or DEFAULT_PAGE


def read_filter(violations: Violations, path: str, request: _WithFilter) -> Filter | None:
    """The filter of a request; None when it is empty or not set."""
    if request.filter.WhichOneof("condition") is None:
        return None
    return conversions.filter_from_proto(violations, path, request.filter)


def read_search(request: pb.SearchRequest) -> SearchPlanInput:
    """A Search.

    Raises:
        InvalidRequest: With everything wrong with it.
    """
    violations = Violations()
    violations.check_catalog("catalog", request.catalog)
    violations.check_count("queries", len(request.queries), 0, MAX_QUERIES)
    if not request.queries and not request.hydrate_item_ids and not request.labels:
        violations.add("queries", "is empty, and so are hydrate_item_ids and labels; ask for something")
    hydrate = read_ids(violations, "hydrate_item_ids", request.hydrate_item_ids, 0, MAX_HYDRATED)
    exclude = read_ids(violations, "exclude_item_ids", request.exclude_item_ids, 0, MAX_EXCLUDED)
    mask = request.read_mask if request.HasField("read_mask") else FieldMask(paths=["id"])
    conversions.check_read_mask(violations, "read_mask", mask)
    condition = read_filter(violations, "filter", request)
    names: dict[str, int] = {}
    queries, texts = [], {}
    for i, query in enumerate(request.queries[:MAX_QUERIES]):
        path = f"queries[{i}]"
        violations.check_text(f"{path}.name", query.name, 64)
        first = names.setdefault(query.name, i)
        if first != i:
            violations.add(f"{path}.name", f"is that of queries[{first}]; names in a request differ")
        queries.append(_read_query(violations, path, query))
        if query.WhichOneof("input") == "text":
            texts[i] = query.text
    labels = _read_labels(violations, request)
    versions = _read_versions(violations, request)
    violations.raise_if_any()
    search = SearchInput(
        queries=tuple(queries),
        condition=condition,
        hydrate=hydrate,
        exclude=exclude,
        include_unavailable=request.include_unavailable,
        vectors_space=request.vectors_space,
        versions=versions,
        hidden=conversions.hidden_fields(mask.paths),
        labels=labels,
    )
    return SearchPlanInput(search, texts, request.min_sequence if request.HasField("min_sequence") else 0)


def _read_labels(violations: Violations, request: pb.SearchRequest) -> tuple[Label, ...]:
    violations.check_count("labels", len(request.labels), 0, MAX_LABELS)
    names: dict[str, int] = {}
    labels = []
    for i, label in enumerate(request.labels[:MAX_LABELS]):
        path = f"labels[{i}]"
        violations.check_text(f"{path}.name", label.name, MAX_LABEL_NAME_BYTES)
        first = names.setdefault(label.name, i)
        if first != i:
            violations.add(f"{path}.name", f"is that of labels[{first}]; names in a request differ")
        if label.add > MAX_ADDED:
            violations.add(f"{path}.add", f"is {label.add}; at most {MAX_ADDED} are allowed")
        labels.append(Label(label.name, read_filter(violations, f"{path}.filter", label), label.add))
    return tuple(labels)


def _read_versions(violations: Violations, request: pb.SearchRequest) -> dict[str, int]:
    """The version of each space that a Search asks for. One each: the answer names one."""
    versions = {query.space or SEMANTIC: query.space_version for query in reversed(request.queries[:MAX_QUERIES])}
    for i, query in enumerate(request.queries[:MAX_QUERIES]):
        if query.space_version != versions[query.space or SEMANTIC]:
            violations.add(f"queries[{i}].space_version", "differs from another query's of the space; use one version")
    if request.vectors_space:
        if versions.setdefault(request.vectors_space, request.vectors_space_version) != request.vectors_space_version:
            violations.add("vectors_space_version", "differs from that of the queries of the space; use one version")
    elif request.vectors_space_version:
        violations.add("vectors_space_version", "has no vectors_space; name the space")
    return versions


def _read_query(violations: Violations, path: str, query: pb.SearchQuery) -> VectorQuery:
    if query.limit > MAX_HITS:
        violations.add(f"{path}.limit", f"is {query.limit}; at most {MAX_HITS} are allowed")
    vector = None
    examples: tuple[tuple[str, float], ...] = ()
    kind = query.WhichOneof("input")
    if kind == "vector":
        vector = conversions.vector_from_proto(violations, f"{path}.vector", query.vector)
        if vector is not None and query.space in ("", SEMANTIC):
            vector = unit(vector[None, :])[0]
    elif kind == "text":
        violations.check_text(f"{path}.text", query.text, MAX_QUERY_BYTES)
        if not query.text.strip():
            violations.add(f"{path}.text", "is blank; there is nothing to look for")
    elif kind == "examples":
        examples = _read_examples(violations, f"{path}.examples.items", query.examples)
    else:
        violations.add(path, "asks for nothing; set vector, text or examples")
    condition = read_filter(violations, f"{path}.filter", query)
    return VectorQuery(
        name=query.name,
        limit=query.limit or DEFAULT_HITS,
        vector=vector,
        fingerprint=query.vector.space_fingerprint,
        examples=examples,
        condition=condition,
        exact=query.exact,
        space=query.space or SEMANTIC,
        score_all=query.score_all,
    )


def _read_examples(violations: Violations, path: str, message: pb.Examples) -> tuple[tuple[str, float], ...]:
    violations.check_count(path, len(message.items), 1, MAX_EXAMPLES)
    seen: dict[str, int] = {}
    for i, example in enumerate(message.items[:MAX_EXAMPLES]):
        violations.check_id(f"{path}[{i}].item_id", example.item_id)
        violations.check_range(f"{path}[{i}].weight", example.weight, -1e6, 1e6)
        if example.weight == 0:
            violations.add(f"{path}[{i}].weight", "is zero; leave the item out")
        if seen.setdefault(example.item_id, i) != i:
            violations.add(f"{path}[{i}].item_id", f"is that of [{seen[example.item_id]}]; add the weights up")
    if message.items and not any(example.weight > 0 for example in message.items):
        violations.add(path, "has no positive weight; say what to be like")
    return tuple((example.item_id, example.weight) for example in message.items)


def _hash(request: Message) -> bytes:
    return hashlib.blake2b(request.SerializeToString(deterministic=True), digest_size=16).digest()
