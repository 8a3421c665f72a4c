"""What a write to the spaces beside `semantic` asks for, and what those who keep derived state are told of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval_service.index_messages import IndexChange
from retrieval_service.named_spaces import IndexKey, LiveSpaces, NamedSpace


@dataclass(frozen=True, slots=True)
class NewProjection:
    """The map of a version to be made.

    Attributes:
        matrix: Shape (dimensions, semantic dimensions).
        bias: Shape (dimensions,).
        source_mean: Shape (semantic dimensions,); None: the present one of the semantic space.
        fingerprint: Of the semantic space it is for; empty: the caller vouches for it.
    """

    matrix: NDArray[np.float32]
    bias: NDArray[np.float32]
    source_mean: NDArray[np.float32] | None
    fingerprint: str


@dataclass(frozen=True, slots=True)
class NewSpaceVersion:
    """A checked request for a version; `space` has no version number yet. The rest as in UpsertBatch."""

    catalog: str
    space: NamedSpace
    projection: NewProjection | None
    request_id: str = ""
    request_hash: bytes = b""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class VectorBatch:
    """Checked vectors for a version.

    Attributes:
        catalog: Name of the catalogue.
        space: The space.
        version: Of the space.
        item_ids: With different ids.
        vectors: As the space takes them in, a row an item.
        size_bytes: Of the request.
    """

    catalog: str
    space: str
    version: int
    item_ids: tuple[str, ...]
    vectors: NDArray[np.float32]
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SpacesChanged:
    """A catalogue has other versions, or another one is published.

    Attributes:
        key: The version it is about.
        spaces: All live ones after the write.
        sequence: Of the write; None: it took none.
        dropped: Whether the version is gone.
    """

    key: IndexKey
    spaces: LiveSpaces
    sequence: int | None = None
    dropped: bool = False


@dataclass(frozen=True, slots=True)
class VectorsPut:
    """Vectors were put into a version."""

    change: IndexChange
