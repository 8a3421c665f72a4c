"""What the encoder makes of texts, with numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zhiyin.common.v1 import embedding_pb2
from zhiyin.encoder.v1 import encoder_service_pb2 as encoder
from zhiyin_client.vectors import FloatMatrix, from_matrix

Role = Literal["query", "passage", "raw"]
_ROLES = {
    "query": encoder.TEXT_ROLE_QUERY,
    "passage": encoder.TEXT_ROLE_PASSAGE,
    "raw": encoder.TEXT_ROLE_RAW,
}


@dataclass(frozen=True)
class Embeddings:
    """The vectors of some texts, in their order."""

    vectors: FloatMatrix
    """Shape (texts, dimensions), float32, of length 1 when the model normalises."""
    token_counts: NDArray[np.int64]
    """Tokens of each text after prompt and truncation, shape (texts,)."""
    truncated: NDArray[np.bool_]
    """Whether each text was cut, shape (texts,)."""
    space_fingerprint: str
    """The model: vectors may meet only where it is equal."""
    build_fingerprint: str
    """The precise build, precision and provider included: a key for caches."""


def embed_request(
    texts: Sequence[str], role: Role, *, float16: bool, expected_space_fingerprint: str
) -> encoder.EmbedRequest:
    """Asks for the vectors of texts."""
    return encoder.EmbedRequest(
        texts=[texts] if isinstance(texts, str) else texts,
        role=_ROLES[role],
        dtype=embedding_pb2.VECTOR_DTYPE_FLOAT16 if float16 else embedding_pb2.VECTOR_DTYPE_FLOAT32,
        expected_space_fingerprint=expected_space_fingerprint,
    )


def embeddings_of(response: encoder.EmbedResponse) -> Embeddings:
    """Reads the vectors."""
    return Embeddings(
        vectors=from_matrix(response.embeddings),
        token_counts=np.array(response.token_counts, dtype=np.int64),
        truncated=np.array(response.truncated, dtype=np.bool_),
        space_fingerprint=response.embeddings.space_fingerprint,
        build_fingerprint=response.build_fingerprint,
    )


def labels_of(labels: Mapping[str, str | Sequence[str]] | Sequence[encoder.Label]) -> list[encoder.Label]:
    """Labels by their ids: a description or several each; or whole messages, with examples."""
    if not isinstance(labels, Mapping):
        return list(labels)
    return [
        encoder.Label(id=label_id, descriptions=[described] if isinstance(described, str) else described)
        for label_id, described in labels.items()
    ]
