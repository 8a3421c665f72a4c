"""The vector spaces of a catalogue beside `semantic`: their versions, and the map that gives new items vectors at once.

A version is live from its creation until it is retired; at most one of a space is published, which is the one that a
search uses when it names none. `semantic` is the encoder's and always version 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval_service.centering import transform, unit
from service_runtime.errors import FailedPrecondition, NotFound

SEMANTIC = "semantic"
SEMANTIC_VERSION = 1
COSINE, INNER_PRODUCT = "cosine", "inner_product"
MAX_COMPONENT = 10_000.0
"""Of a vector in an inner product space: products of thousands of components stay exact enough in float32, and FLOAT16
holds every component."""


class IndexKey(NamedTuple):
    """Names an index: one version of one space of one catalogue. As text it names the worker's index and a folder."""

    catalog_id: int
    space: str = SEMANTIC
    version: int = SEMANTIC_VERSION

    def __str__(self) -> str:
        return str(self.catalog_id) if self.semantic else f"{self.catalog_id}.{self.space}.{self.version}"

    @property
    def semantic(self) -> bool:
        """Whether it is the encoder's space."""
        return self.space == SEMANTIC


@dataclass(frozen=True, slots=True)
class NamedSpace:
    """A live version of a space beside `semantic`.

    Attributes:
        space: Its name.
        version: The sequence number of the write that made it, so it is never used twice.
        dimensions: Components of a vector.
        metric: `cosine` or `inner_product`.
        centered: Whether a mean is subtracted; cosine only.
        fingerprint: Shared by all its vectors.
        derived_from: The space it has a projection from; empty: none.
        published: Whether searches that name no version use it.
        mean: What is subtracted, shape (dimensions,); None: nothing (yet). Fixed at the first publication.
    """

    space: str
    version: int
    dimensions: int
    metric: str
    centered: bool
    fingerprint: str
    derived_from: str = ""
    published: bool = False
    mean: NDArray[np.float32] | None = None

    @property
    def normalize(self) -> bool:
        """Whether vectors are compared by their direction only."""
        return self.metric == COSINE

    @property
    def epoch(self) -> int:
        """Counts the changes of the mean, as SpaceRow's does."""
        return 0 if self.mean is None else 1

    def entering(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors as the space takes them in: of length 1 where lengths do not matter."""
        return unit(vectors) if self.normalize else np.ascontiguousarray(vectors, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear map from the semantic space.

    Attributes:
        matrix: Shape (dimensions, semantic dimensions).
        bias: Shape (dimensions,).
        source_mean: The semantic mean that the map was trained without, for its whole life: what the index subtracts
            follows the corpus, and would move every projected vector with it. None: nothing.
    """

    matrix: NDArray[np.float32]
    bias: NDArray[np.float32]
    source_mean: NDArray[np.float32] | None

    def vectors(self, semantic: NDArray[np.float32], space: NamedSpace) -> NDArray[np.float32]:
        """Vectors of items as their space takes them in, shape (n, dimensions).

        A row depends on its own item only, whatever is projected along with it: a replay gives what the live run gave.

        Args:
            semantic: Raw, of length 1, shape (n, semantic dimensions).
            space: The one they go to.
        """
        source = transform(semantic, self.source_mean)
        # One matrix-vector product a row: a matrix product adds in an order that depends on how many rows there are.
        projected = np.empty((len(source), len(self.matrix)), dtype=np.float32)
        for row, out in zip(source, projected, strict=True):
            np.dot(self.matrix, row, out=out)
        return space.entering(projected + self.bias)


class LiveSpaces:
    """The live versions of one catalogue's spaces beside `semantic`; never changed, only replaced."""

    def __init__(self, versions: tuple[NamedSpace, ...] = ()) -> None:
        self._versions = {(row.space, row.version): row for row in versions}
        self._published = {row.space: row for row in versions if row.published}

    def __iter__(self) -> Iterator[NamedSpace]:
        return iter(self._versions.values())

    def __len__(self) -> int:
        return len(self._versions)

    def version(self, space: str, version: int) -> NamedSpace:
        """A live version.

        Raises:
            NotFound: There is no such space, or no such version of it.
        """
        found = self._versions.get((space, version))
        if found is None:
            if not any(row.space == space for row in self):
                raise NotFound("space", space)
            raise NotFound("space_version", f"{space}/{version}", f"space {space!r} has no live version {version}")
        return found

    def to_search(self, space: str, version: int) -> NamedSpace:
        """The version that a search uses; `version` 0: the published one.

        Raises:
            NotFound: As `version`.
            FailedPrecondition: None is named and none is published.
        """
        if version:
            return self.version(space, version)
        found = self._published.get(space)
        if found is None:
            if not any(row.space == space for row in self):
                raise NotFound("space", space)
            raise FailedPrecondition(
                f"space {space!r} has no published version; publish one or name one", reason="SPACE_NOT_PUBLISHED"
            )
        return found
