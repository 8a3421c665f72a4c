"""Between the wire and the domain: requests are checked here, answers are built here."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from ranking_service.candidate import Floats
from ranking_service.clients import matrix_rows
from ranking_service.intents.intent import Understood
from ranking_service.query import DEFAULT_DIVERSITY, Anonymous, DiversityMethod, Query
from ranking_service.rerank import Candidates
from ranking_service.selectors.slate import Versions
from ranking_service.stages import Journal
from service_runtime import attributes
from service_runtime.validation import Violations
from zhiyin.common.v1.embedding_pb2 import VECTOR_DTYPE_FLOAT16, EmbeddingMatrix
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

MAX_PAGE_SIZE = 100
MAX_RERANK_CANDIDATES = 1_000
_DEFAULT_PAGE_SIZE = 10
_DEFAULT_MASK = ("title", "categories")
_MAX_EXCLUDED = 1_000
_MAX_SHELF = 100
_METHODS = {
    pb2.DIVERSITY_METHOD_UNSPECIFIED: DiversityMethod.MSD,
    pb2.DIVERSITY_METHOD_MSD: DiversityMethod.MSD,
    pb2.DIVERSITY_METHOD_MMR: DiversityMethod.MMR,
    pb2.DIVERSITY_METHOD_DPP: DiversityMethod.DPP,
    pb2.DIVERSITY_METHOD_NONE: DiversityMethod.NONE,
}


def recommend_query(request: pb2.RecommendRequest) -> Query:
    """A Recommend request, checked.

    Raises:
        InvalidRequest: With everything that is wrong.
    """
    found = Violations()
    found.check_catalog("catalog", request.catalog)
    anonymous = None
    if request.WhichOneof("subject") == "user_id":
        found.check_id("user_id", request.user_id)
    elif request.WhichOneof("subject") == "anonymous":
        anonymous = _anonymous(found, request.anonymous)
    found.check_text("query_text", request.query_text, 4_096)
    _check_context(found, request.context)
    _check_page_size(found, request.page_size, MAX_PAGE_SIZE)
    _check_ids(found, "excluded_item_ids", request.excluded_item_ids, 0, _MAX_EXCLUDED)
    found.check_text("experiment_variant", request.experiment_variant, 64)
    diversity = request.diversity if request.HasField("diversity") else DEFAULT_DIVERSITY
    found.check_range("diversity", diversity, 0.0, 1.0)
    found.check_range("exploration", request.exploration, 0.0, 1.0)
    _check_mask(found, request.item_mask)
    method = _method(found, request.diversity_method)
    found.raise_if_any()
    has_time = request.context.HasField("time")
    return Query(
        catalog=request.catalog,
        user_id=request.user_id,
        anonymous=anonymous,
        text=request.query_text.strip(),
        locale=request.context.locale,
        device=request.context.device,
        place=request.context.place,
        filter=request.filter if request.HasField("filter") else None,
        excluded=frozenset(request.excluded_item_ids),
        diversity=diversity,
        method=method,
        exploration=request.exploration,
        include_seen=request.include_seen if request.HasField("include_seen") else None,
        consistency_token=request.consistency_token,
        variant=request.experiment_variant,
        now=request.context.time.ToNanoseconds() / 1e9 if has_time else time.time(),
        seed=secrets.randbits(32),
        reads_intents=True,
        left_open=frozenset(name for name in ("diversity", "exploration") if not request.HasField(name)),
    )


def shelf_request(request: pb2.SimilarItemsRequest) -> tuple[Query, tuple[str, ...]]:
    """A SimilarItems request, checked: the query, and the items to be like.

    Raises:
        InvalidRequest: With everything that is wrong.
    """
    found = Violations()
    found.check_catalog("catalog", request.catalog)
    _check_ids(found, "item_ids", request.item_ids, 1, _MAX_SHELF)
    _check_page_size(found, request.page_size, MAX_PAGE_SIZE)
    _check_ids(found, "excluded_item_ids", request.excluded_item_ids, 0, _MAX_EXCLUDED)
    found.check_range("diversity", request.diversity, 0.0, 1.0)
    _check_mask(found, request.item_mask)
    found.check_text("locale", request.locale, 64)
    method = _method(found, request.diversity_method)
    found.raise_if_any()
    query = Query(
        catalog=request.catalog,
        locale=request.locale,
        filter=request.filter if request.HasField("filter") else None,
        excluded=frozenset(request.excluded_item_ids),
        diversity=request.diversity,
        method=method,
        now=time.time(),
        seed=secrets.randbits(32),
    )
    return query, tuple(dict.fromkeys(request.item_ids))


def rerank_request(request: pb2.RerankRequest) -> tuple[Query, Candidates, float, int]:
    """A Rerank request, checked: the query, the candidates, the weight of our own scores, and the places wanted.

    Raises:
        InvalidRequest: With everything that is wrong.
    """
    found = Violations()
    found.check_catalog("catalog", request.catalog)
    ids = [candidate.item_id for candidate in request.candidates]
    _check_ids(found, "candidates", ids, 1, MAX_RERANK_CANDIDATES, part=".item_id")
    if len(set(ids)) < len(ids):
        found.add("candidates", "name an item more than once; give every item once")
    scores = np.array([candidate.score for candidate in request.candidates], dtype=np.float64)
    # Checked as float32, which is what scores are compared as.
    with np.errstate(over="ignore"):
        narrow = scores.astype(np.float32)
    for place in np.flatnonzero(~np.isfinite(narrow)).tolist():
        found.add(f"candidates[{place}].score", "is not a finite number of single precision")
    _check_page_size(found, request.page_size, MAX_RERANK_CANDIDATES)
    diversity = request.diversity if request.HasField("diversity") else DEFAULT_DIVERSITY
    found.check_range("diversity", diversity, 0.0, 1.0)
    if request.user_id:
        found.check_id("user_id", request.user_id)
    has_weight = request.HasField("personalization")
    personalization = request.personalization if has_weight else (0.5 if request.user_id else 0.0)
    found.check_range("personalization", personalization, 0.0, 1.0)
    if has_weight and personalization > 0 and not request.user_id:
        found.add("personalization", "needs a user_id")
    vectors = _matrix(found, request.vectors, len(ids)) if request.HasField("vectors") else None
    method = _method(found, request.diversity_method)
    found.raise_if_any()
    query = Query(request.catalog, request.user_id, diversity=diversity, method=method, now=time.time())
    return query, Candidates(ids, narrow, vectors), personalization, request.page_size or len(ids)


def mask_fields(mask: FieldMask) -> tuple[str, ...]:
    """The fields of Item to send."""
    return tuple(dict.fromkeys(mask.paths)) or _DEFAULT_MASK


def page_size(wanted: int) -> int:
    """Items of a page."""
    return wanted or _DEFAULT_PAGE_SIZE


def masked_item(item: Item, fields: Sequence[str]) -> Item:
    """The item with its id and these fields only."""
    masked = Item()
    masked.CopyFrom(item)
    for field, _ in item.ListFields():
        if field.name != "id" and field.name not in fields:
            masked.ClearField(field.name)  # type: ignore[arg-type]
    return masked


def journal_parts(journal: Journal) -> tuple[list[pb2.Degradation], list[pb2.StageTiming]]:
    """The journal for the wire."""
    degraded = [pb2.Degradation(component=d.component, reason=d.reason, message=d.message) for d in journal.degraded]
    timings = [pb2.StageTiming(stage=stage, duration=_duration(seconds)) for stage, seconds in journal.timings]
    return degraded, timings


def intent_messages(understood: Understood) -> list[pb2.Intent]:
    """What the user was understood to be up to, for the wire."""
    return [pb2.Intent(label=label, probability=probability) for label, probability in understood.labels]


def versions_message(versions: Versions) -> pb2.ServingVersions:
    """The versions for the wire."""
    return pb2.ServingVersions(
        bundle=versions.bundle,
        space_versions=versions.space_versions,
        catalog_sequence=versions.catalog_sequence,
        event_sequence=versions.event_sequence,
    )


def _anonymous(found: Violations, profile: pb2.AnonymousProfile) -> Anonymous:
    found.check_text("anonymous.text", profile.text, 8 << 10)
    _check_ids(found, "anonymous.recent_item_ids", profile.recent_item_ids, 0, 200)
    attributes.check(found, "anonymous.attributes", profile.attributes)
    known: Mapping[str, attributes.AttributeScalar] = {} if found else attributes.from_proto(profile.attributes)
    return Anonymous(profile.text, tuple(profile.recent_item_ids), known)


def _check_context(found: Violations, context: pb2.RecommendContext) -> None:
    for name in ("locale", "device", "place"):
        found.check_text(f"context.{name}", getattr(context, name), 64)
    if context.HasField("time"):
        found.check_timestamp("context.time", context.time)


def _check_ids(found: Violations, field: str, ids: Sequence[str], low: int, high: int, part: str = "") -> None:
    found.check_count(field, len(ids), low, high)
    for place, item_id in enumerate(ids[:high]):
        found.check_id(f"{field}[{place}]{part}", item_id)


def _check_page_size(found: Violations, size: int, most: int) -> None:
    if size > most:
        found.add("page_size", f"is {size}; at most {most} are allowed")


def _check_mask(found: Violations, mask: FieldMask) -> None:
    for path in mask.paths:
        if path not in Item.DESCRIPTOR.fields_by_name:
            found.add("item_mask", f"{path!r} is no field of Item; name top-level fields such as `title`")


def _method(found: Violations, value: int) -> DiversityMethod:
    method = _METHODS.get(value)  # type: ignore[call-overload]
    if method is None:
        found.add("diversity_method", f"{value} is no diversity method of this release")
    return method or DiversityMethod.MSD


def _matrix(found: Violations, matrix: EmbeddingMatrix, rows: int) -> Floats | None:
    size = 2 if matrix.dtype == VECTOR_DTYPE_FLOAT16 else 4
    if matrix.rows != rows:
        found.add("vectors.rows", f"is {matrix.rows}; there are {rows} candidates")
        return None
    if matrix.dimensions < 1 or len(matrix.data) != matrix.rows * matrix.dimensions * size:
        found.add("vectors.data", f"has {len(matrix.data)} bytes; rows x dimensions x {size} are needed")
        return None
    vectors = matrix_rows(matrix)
    if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
        found.add("vectors.data", "has NaN, infinity or a zero vector")
        return None
    return vectors


def _duration(seconds: float) -> Duration:
    nanos = max(round(seconds * 1e9), 0)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)
