"""Reads requests about spaces beside `semantic` into the domain, with every violation at once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval_service.conversions import DTYPES
from retrieval_service.named_spaces import COSINE, INNER_PRODUCT, MAX_COMPONENT, SEMANTIC, NamedSpace
from retrieval_service.requests import MAX_REQUEST_ID_BYTES, read_ids
from retrieval_service.space_messages import NewProjection, NewSpaceVersion, VectorBatch
from service_runtime.errors import SpaceMismatch
from service_runtime.validation import Violations
from zhiyin.common.v1 import embedding_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb

MAX_FINGERPRINT_BYTES = 256
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_METRICS = {
    pb.METRIC_UNSPECIFIED: COSINE,
    pb.METRIC_COSINE: COSINE,
    pb.METRIC_INNER_PRODUCT: INNER_PRODUCT,
}
# Rows that a violation names; the caller finds the others alike.
_NAMED_ROWS = 5


def read_create(request: pb.CreateSpaceVersionRequest, max_dimensions: int) -> NewSpaceVersion:
    """A version to make.

    Raises:
        InvalidRequest: With everything wrong with it.
    """
    violations = Violations()
    violations.check_catalog("catalog", request.catalog)
    asked = request.space_version
    check_space_name(violations, "space_version.space", asked.space)
    if asked.space == SEMANTIC:
        violations.add(
            "space_version.space",
            f"is {SEMANTIC!r}, whose vectors the encoder makes; this release keeps one version of it",
        )
    if not 1 <= asked.dimensions <= max_dimensions:
        violations.add("space_version.dimensions", f"is {asked.dimensions}; must lie between 1 and {max_dimensions}")
    metric = _METRICS.get(asked.metric)
    if metric is None:
        violations.add("space_version.metric", "is unknown; use COSINE or INNER_PRODUCT")
    elif metric == INNER_PRODUCT and asked.centered:
        violations.add("space_version.centered", "is for the metric COSINE: a mean would change what a length says")
    violations.check_id("space_version.space_fingerprint", asked.space_fingerprint, MAX_FINGERPRINT_BYTES)
    projection = _read_projection(violations, request)
    request_hash = b""
    if request.request_id:
        violations.check_id("request_id", request.request_id, MAX_REQUEST_ID_BYTES)
        request_hash = hashlib.blake2b(request.SerializeToString(deterministic=True), digest_size=16).digest()
    violations.raise_if_any()
    space = NamedSpace(
        space=asked.space,
        version=0,
        dimensions=asked.dimensions,
        metric=metric or COSINE,
        centered=asked.centered,
        fingerprint=asked.space_fingerprint,
        derived_from=request.derived_from_space,
    )
    return NewSpaceVersion(request.catalog, space, projection, request.request_id, request_hash, request.ByteSize())


def _read_projection(violations: Violations, request: pb.CreateSpaceVersionRequest) -> NewProjection | None:
    given = [name for name in ("projection", "bias", "source_mean") if request.HasField(name)]
    if not request.derived_from_space:
        for name in given:
            violations.add(name, f"is for a derived space; set derived_from_space to {SEMANTIC!r}")
        return None
    if request.derived_from_space != SEMANTIC:
        violations.add("derived_from_space", f"is {request.derived_from_space!r}; only {SEMANTIC!r} can be projected")
    if "projection" not in given:
        violations.add("projection", "is not set; a derived space needs the map")
        return None
    dimensions = request.space_version.dimensions
    matrix = read_matrix(violations, "projection", request.projection, rows=dimensions)
    bias: NDArray[np.float32] | None = np.zeros(max(matrix.shape[0], 1) if matrix is not None else 1, np.float32)
    if "bias" in given:
        bias = _read_numbers(violations, "bias", request.bias)
        if bias is not None and len(bias) != dimensions:
            violations.add("bias.dimensions", f"is {len(bias)}; the space has {dimensions}")
            bias = None
    mean = _read_numbers(violations, "source_mean", request.source_mean) if "source_mean" in given else None
    if matrix is None or bias is None:
        return None
    # A semantic vector has length 1 or 0 when it is projected: this bounds every component of every result.
    longest = float((np.linalg.norm(matrix.astype(np.float64), axis=1) + np.abs(bias)).max())
    if longest > MAX_COMPONENT:
        violations.add(
            "projection.data",
            f"gives components up to {longest:g} with the bias; at most {MAX_COMPONENT:g} are allowed",
        )
    return NewProjection(matrix, bias, mean, request.projection.space_fingerprint)


def check_space_name(violations: Violations, field: str, name: str) -> None:
    """A name of a space: 1 to 64 of a-z, 0-9, - and _, starting with a letter."""
    if not _NAME.fullmatch(name):
        violations.add(field, "is no name of a space; use 1 to 64 of a-z, 0-9, - and _, starting with a letter")


def check_version(violations: Violations, catalog: str, space: str, version: int) -> None:
    """What names a version that is there. One of `semantic` can only be read."""
    violations.check_catalog("catalog", catalog)
    check_space_name(violations, "space", space)
    if space == SEMANTIC:
        violations.add("space", f"is {SEMANTIC!r}, whose only version is the encoder's")
    if version < 1:
        violations.add("version", "is 0; name a version, as CreateSpaceVersion gave it")


def read_put(request: pb.PutVectorsRequest, max_items: int) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Ids and vectors, as they came.

    Raises:
        InvalidRequest: With everything that is wrong whatever the version.
    """
    violations = Violations()
    check_version(violations, request.catalog, request.space, request.version)
    ids = read_ids(violations, "item_ids", request.item_ids, 1, max_items)
    seen: dict[str, int] = {}
    for i, item_id in enumerate(ids[:max_items]):
        if seen.setdefault(item_id, i) != i:
            violations.add(f"item_ids[{i}]", f"is that of item_ids[{seen[item_id]}]; give each item once")
    vectors = read_matrix(violations, "vectors", request.vectors, rows=len(ids))
    violations.raise_if_any()
    assert vectors is not None
    return ids, vectors


def vectors_for(
    space: NamedSpace, request: pb.PutVectorsRequest, ids: tuple[str, ...], vectors: NDArray[np.float32]
) -> VectorBatch:
    """The vectors of a request as a version takes them in.

    Raises:
        SpaceMismatch: They are of another model.
        InvalidRequest: They have other dimensions, or a row is not for the metric.
    """
    fingerprint = request.vectors.space_fingerprint
    if fingerprint and fingerprint != space.fingerprint:
        raise SpaceMismatch(expected=space.fingerprint, actual=fingerprint)
    violations = Violations()
    if vectors.shape[1] != space.dimensions:
        violations.add("vectors.dimensions", f"is {vectors.shape[1]}; the version has {space.dimensions}")
    elif space.normalize:
        _note_rows(violations, np.flatnonzero(~vectors.any(axis=1)), "is a zero vector, which has no direction")
    else:
        long = np.abs(vectors).max(axis=1) > MAX_COMPONENT
        _note_rows(violations, np.flatnonzero(long), f"has a component beyond {MAX_COMPONENT:g}")
    violations.raise_if_any()
    return VectorBatch(
        request.catalog, request.space, request.version, ids, space.entering(vectors), request.ByteSize()
    )


def read_matrix(
    violations: Violations, path: str, message: embedding_pb2.EmbeddingMatrix, rows: int
) -> NDArray[np.float32] | None:
    """A matrix with so many rows; None when something is wrong with it, which is then noted."""
    dtype = DTYPES.get(message.dtype)
    if dtype is None:
        violations.add(f"{path}.dtype", "is unknown; use FLOAT32 or FLOAT16")
        return None
    if message.rows != rows:
        violations.add(f"{path}.rows", f"is {message.rows}; must be {rows}")
        return None
    needed = message.rows * message.dimensions * dtype.itemsize
    if message.dimensions < 1 or len(message.data) != needed:
        violations.add(
            f"{path}.data",
            f"has {len(message.data)} bytes; {message.rows} rows of {message.dimensions} dimensions of {dtype.name} "
            f"need {needed}",
        )
        return None
    if not rows:
        return None  # that there are none is noted where they are counted
    matrix = np.frombuffer(message.data, dtype=dtype).reshape(rows, message.dimensions)
    wrong = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    _note_rows(violations, wrong, "has NaN or infinity", f"{path}.data")
    return None if len(wrong) else matrix.astype(np.float32)


def _read_numbers(violations: Violations, path: str, message: embedding_pb2.Embedding) -> NDArray[np.float32] | None:
    """As `read_matrix`, for one row that may be zeros."""
    as_matrix = embedding_pb2.EmbeddingMatrix(
        data=message.data, dtype=message.dtype, rows=1, dimensions=message.dimensions
    )
    found = read_matrix(violations, path, as_matrix, rows=1)
    return None if found is None else found[0]


def _note_rows(
    violations: Violations, rows: Sequence[int] | NDArray[np.int64], what: str, path: str = "vectors.data"
) -> None:
    if len(rows):
        named = ", ".join(str(int(row)) for row in rows[:_NAMED_ROWS])
        more = f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
        violations.add(path, f"row {named}{more} {what}")
