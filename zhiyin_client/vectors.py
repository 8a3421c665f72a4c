"""Vectors between numpy and the wire, where they are little-endian bytes, FLOAT32 or FLOAT16."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zhiyin.common.v1 import embedding_pb2

FloatMatrix = NDArray[np.float32]
"""Shape (rows, dimensions)."""

_DTYPES: dict[int, str] = {
    embedding_pb2.VECTOR_DTYPE_UNSPECIFIED: "<f4",
    embedding_pb2.VECTOR_DTYPE_FLOAT32: "<f4",
    embedding_pb2.VECTOR_DTYPE_FLOAT16: "<f2",
}


def to_embedding(vector: ArrayLike, space_fingerprint: str = "") -> embedding_pb2.Embedding:
    """One vector of shape (dimensions,); float16 travels as FLOAT16, everything else as FLOAT32.

    Args:
        vector: The numbers.
        space_fingerprint: The model it came from; the server then refuses it where another one serves.

    Raises:
        ValueError: It has not one dimension, or no component.
    """
    numbers, dtype = _on_the_wire(vector, 1)
    return embedding_pb2.Embedding(
        data=numbers.tobytes(), dtype=dtype, dimensions=numbers.size, space_fingerprint=space_fingerprint
    )


def to_matrix(vectors: ArrayLike, space_fingerprint: str = "") -> embedding_pb2.EmbeddingMatrix:
    """Vectors of shape (rows, dimensions), as `to_embedding` does one."""
    numbers, dtype = _on_the_wire(vectors, 2)
    rows, dimensions = numbers.shape
    return embedding_pb2.EmbeddingMatrix(
        data=numbers.tobytes(), dtype=dtype, rows=rows, dimensions=dimensions, space_fingerprint=space_fingerprint
    )


def from_matrix(message: embedding_pb2.EmbeddingMatrix) -> FloatMatrix:
    """Vectors of shape (rows, dimensions), always float32; ours to change.

    Raises:
        ValueError: The bytes are not what `rows` and `dimensions` say.
    """
    numbers: FloatMatrix = np.frombuffer(message.data, dtype=_DTYPES[message.dtype]).astype(np.float32)
    return numbers.reshape(message.rows, message.dimensions)


def _on_the_wire(
    vectors: ArrayLike, dimensions: int
) -> tuple[NDArray[np.floating], embedding_pb2.VectorDtype.ValueType]:
    array = np.asarray(vectors)
    if array.ndim != dimensions or 0 in array.shape[-1:]:
        raise ValueError(
            f"vectors of shape {array.shape}; it takes {dimensions} dimension(s), and a component at least"
        )
    if array.dtype == np.float16:
        return array.astype("<f2"), embedding_pb2.VECTOR_DTYPE_FLOAT16
    return array.astype("<f4"), embedding_pb2.VECTOR_DTYPE_FLOAT32
