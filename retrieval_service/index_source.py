"""Where the vectors of an index come from: the store's, put by callers, or projected. One way in for every reader.

Filling a worker, replaying over a snapshot and building one all read an index through here, so that what is derived is
derived in one place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from retrieval_service.item_store import ItemStore
from retrieval_service.named_spaces import IndexKey, NamedSpace
from retrieval_service.space_index import Geometry
from retrieval_service.vector_rows import Connection, SpaceRow, VectorChanges


class IndexSource(Protocol):
    """What an index should hold, in one transaction."""

    @property
    def geometry(self) -> Geometry:
        """What all its vectors share."""
        ...

    def changes(self, after: int) -> Iterator[VectorChanges]:
        """What happened to its vectors after sequence number `after`, in parts; once more changes nothing."""
        ...

    def count(self) -> int:
        """How many items have a vector in it."""
        ...


def index_source(store: ItemStore, connection: Connection, key: IndexKey) -> IndexSource | None:
    """The source of an index; None: it is gone, or a catalogue has no vectors yet."""
    semantic = store.space(connection, key.catalog_id)
    if key.semantic:
        return None if semantic is None else _Semantic(store, connection, key, semantic)
    for space in store.named_spaces(connection, key.catalog_id):
        if (space.space, space.version) == (key.space, key.version):
            return _Named(store, connection, key, space, semantic)
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class _Semantic:
    store: ItemStore
    connection: Connection
    key: IndexKey
    space: SpaceRow

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.space.dimensions, self.space.centering.mean, self.space.centering.epoch)

    def changes(self, after: int) -> Iterator[VectorChanges]:
        return self.store.vector_changes(self.connection, self.key.catalog_id, after, self.space.dimensions)

    def count(self) -> int:
        return self.space.centering.count


@dataclasses.dataclass(frozen=True, slots=True)
class _Named:
    store: ItemStore
    connection: Connection
    key: IndexKey
    space: NamedSpace
    semantic: SpaceRow | None

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.space.dimensions, self.space.mean, self.space.epoch, self.space.normalize)

    def changes(self, after: int) -> Iterator[VectorChanges]:
        dimensions = self.space.dimensions
        gone = self.store.deleted_after(self.connection, self.key.catalog_id, after)
        if len(gone):
            yield VectorChanges(np.empty(0, np.int64), np.empty((0, dimensions), np.float32), gone)
        if self.space.derived_from and self.semantic is not None:
            projection = self.store.projection(self.connection, self.space, self.key.catalog_id)
            assert projection is not None
            for part in self.store.semantic_vectors_not_put(self.connection, self.key, after, self.semantic.dimensions):
                yield dataclasses.replace(part, vectors=projection.vectors(part.vectors, self.space))
        yield from self.store.put_vectors_after(self.connection, self.key, after, dimensions)

    def count(self) -> int:
        if self.space.derived_from:
            return 0 if self.semantic is None else self.semantic.centering.count
        return self.store.put_vector_count(self.connection, self.key)
