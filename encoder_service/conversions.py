"""Requests checked, answers built: everything that knows the protos, apart from the handlers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encoder_service.model_directory import Role
from encoder_service.text_encoder import EncodedTexts
from service_runtime.validation import Violations
from zhiyin.common.v1 import embedding_pb2
from zhiyin.encoder.v1 import encoder_service_pb2 as pb

# An answer below this passes clients with gRPC's default limit of 4 MiB.
MAX_ANSWER_BYTES = 3 << 20

_ROLES: dict[int, Role] = {
    pb.TEXT_ROLE_UNSPECIFIED: "query",
    pb.TEXT_ROLE_QUERY: "query",
    pb.TEXT_ROLE_PASSAGE: "passage",
    pb.TEXT_ROLE_RAW: "raw",
}
_DTYPES: dict[int, tuple[str, embedding_pb2.VectorDtype.ValueType]] = {
    embedding_pb2.VECTOR_DTYPE_UNSPECIFIED: ("<f4", embedding_pb2.VECTOR_DTYPE_FLOAT32),
    embedding_pb2.VECTOR_DTYPE_FLOAT32: ("<f4", embedding_pb2.VECTOR_DTYPE_FLOAT32),
    embedding_pb2.VECTOR_DTYPE_FLOAT16: ("<f2", embedding_pb2.VECTOR_DTYPE_FLOAT16),
}


@dataclass(frozen=True)
class Limits:
    """What one request may hold.

    Attributes:
        max_texts: Texts of a request or of a stream's batch.
        max_text_bytes: UTF-8 bytes of a text.
    """

    max_texts: int
    max_text_bytes: int


def effective_limits(max_texts: int, max_text_bytes: int, dimensions: int) -> Limits:
    """Lowers `max_texts` so that an answer stays below `MAX_ANSWER_BYTES`."""
    return Limits(max(1, min(max_texts, MAX_ANSWER_BYTES // (dimensions * 4 + 16))), max_text_bytes)


def read_request(texts: Sequence[str], role: int, dtype: int, limits: Limits) -> Role:
    """Checks the fields that Embed and a stream's batch share.

    Raises:
        InvalidRequest: With everything that is wrong.
    """
    violations = Violations()
    check_texts(violations, "texts", texts, 1, limits.max_texts, limits.max_text_bytes)
    if role not in _ROLES:
        violations.add("role", f"is {role}, which this release does not know")
    if dtype not in _DTYPES:
        violations.add("dtype", f"is {dtype}, which this release does not know")
    violations.raise_if_any()
    return _ROLES[role]


def check_texts(
    violations: Violations, field: str, texts: Sequence[str], fewest: int, most: int, max_text_bytes: int
) -> None:
    """A list of `fewest` to `most` texts that are not blank, each of at most `max_text_bytes`."""
    violations.check_count(field, len(texts), fewest, most)
    for i, text in enumerate(texts[:most]):
        violations.check_text(f"{field}[{i}]", text, max_text_bytes)
        if not text or text.isspace():
            violations.add(f"{field}[{i}]", "is blank; leave it out or give a text")


def to_response(
    encoded: EncodedTexts, dtype: int, space_fingerprint: str, build_fingerprint: str, seconds: float
) -> pb.EmbedResponse:
    """The answer to one request."""
    matrix = np.stack([text.vector for text in encoded.texts])
    numpy_type, wire_type = _DTYPES[dtype]
    response = pb.EmbedResponse(
        embeddings=embedding_pb2.EmbeddingMatrix(
            data=matrix.astype(numpy_type).tobytes(),
            dtype=wire_type,
            rows=matrix.shape[0],
            dimensions=matrix.shape[1],
            space_fingerprint=space_fingerprint,
        ),
        token_counts=[text.token_count for text in encoded.texts],
        truncated=[text.truncated for text in encoded.texts],
        build_fingerprint=build_fingerprint,
        cached_count=encoded.cached_count,
    )
    response.encode_time.FromMicroseconds(int(seconds * 1e6))
    return response
