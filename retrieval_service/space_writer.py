"""The way of a write to a space beside `semantic`: commit -> load -> answer; a version is published once it is loaded.

Loading fills an index from the store, which takes seconds for a large catalogue. It runs beside searches and writes, in
a thread of its own, and what it needs is committed before: whoever repeats an interrupted call goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval_service.catalog_registry import CatalogRegistry
from retrieval_service.catalog_writer import CatalogWriter
from retrieval_service.centering import MIN_VECTORS
from retrieval_service.index_host import IndexHost
from retrieval_service.index_source import index_source
from retrieval_service.item_store import CatalogRow, ItemStore
from retrieval_service.named_spaces import IndexKey, NamedSpace
from retrieval_service.space_messages import NewSpaceVersion, SpacesChanged, VectorBatch, VectorsPut
from retrieval_service.space_writes import SpaceWrites
from retrieval_service.vector_rows import Connection
from service_runtime.errors import FailedPrecondition, NotFound

_SMALL_WRITE_BYTES = 256


@dataclass(frozen=True, slots=True)
class SpaceFigures:
    """What a listing says of a version beside its row: items with a vector, and those whose vector was put."""

    vectors: int
    put: int


class SpaceWriter:
    """Makes, fills, publishes and retires versions.

    Args:
        store: The truth.
        writes: What writes do to it.
        catalogs: The one writer of the store.
        registry: Catalogues in memory.
        host: The indexes.
    """

    def __init__(
        self,
        store: ItemStore,
        writes: SpaceWrites,
        catalogs: CatalogWriter,
        registry: CatalogRegistry,
        host: IndexHost,
    ) -> None:
        self._store, self._writes, self._catalogs = store, writes, catalogs
        self._registry, self._host = registry, host

    async def create(self, new: NewSpaceVersion) -> NamedSpace:
        """Makes a version; returns when it can be searched.

        Raises:
            ZhiyinError: As SpaceWrites.create.
        """
        done = await self._change(
            new.catalog, lambda connection, row: self._writes.create(connection, row, new), new.size_bytes
        )
        await self._load(done.key)
        return done.spaces.version(done.key.space, done.key.version)

    async def put(self, batch: VectorBatch) -> int:
        """Puts vectors; returns the write's sequence number when they are durable and searchable.

        Raises:
            ZhiyinError: As SpaceWrites.put.
        """

        def write(connection: Connection) -> VectorsPut:
            return self._writes.put(connection, self._catalogs.catalog(connection, batch.catalog), batch)

        done = await self._catalogs.submit(write, batch.size_bytes)
        assert isinstance(done, VectorsPut)
        return done.change.sequence

    async def publish(self, catalog: str, space: str, version: int) -> NamedSpace:
        """Makes a version the one that searches use by default.

        Raises:
            NotFound: There is no such version.
            FailedPrecondition: It has no vectors, or too few for a mean.
        """
        state = self._registry.get(catalog)
        key, row = IndexKey(state.row.catalog_id, space, version), state.spaces.version(space, version)
        mean = await asyncio.to_thread(mean_to_fix, self._store, key, row)
        if mean is not None:
            fixed: NDArray[np.float32] = mean
            await self._change(
                catalog, lambda connection, row: self._writes.fix_mean(connection, row, space, version, fixed)
            )
        await self._load(key)
        done = await self._change(
            catalog, lambda connection, row: self._writes.publish(connection, row, space, version)
        )
        return done.spaces.version(space, version)

    async def retire(self, catalog: str, space: str, version: int) -> None:
        """Drops a version for good.

        Raises:
            ZhiyinError: As SpaceWrites.retire.
        """
        await self._change(catalog, lambda connection, row: self._writes.retire(connection, row, space, version))

    def figures(self, catalog_id: int, spaces: list[NamedSpace]) -> list[SpaceFigures]:
        """Counts of versions, in the order given; zeros for one that is gone. Reads the store."""
        found = []
        with self._store.reading() as connection:
            for space in spaces:
                key = IndexKey(catalog_id, space.space, space.version)
                source = index_source(self._store, connection, key)
                put = self._store.put_vector_count(connection, key)
                found.append(SpaceFigures(0 if source is None else source.count(), put))
        return found

    async def _load(self, key: IndexKey) -> None:
        if not await asyncio.to_thread(self._host.load, key):
            raise NotFound("space_version", f"{key.space}/{key.version}")

    async def _change(
        self,
        catalog: str,
        write: Callable[[Connection, CatalogRow], SpacesChanged],
        size_bytes: int = _SMALL_WRITE_BYTES,
    ) -> SpacesChanged:
        done = await self._catalogs.submit(
            lambda connection: write(connection, self._catalogs.catalog(connection, catalog)), size_bytes
        )
        assert isinstance(done, SpacesChanged)
        return done


def mean_to_fix(store: ItemStore, key: IndexKey, space: NamedSpace) -> NDArray[np.float32] | None:
    """The mean of a version that is to be centred and has none yet: of all its vectors. None: nothing is to be fixed.

    Raises:
        NotFound: The version is gone.
        FailedPrecondition: It must not be published: it has no vectors, or too few for a mean.
    """
    with store.reading() as connection:
        source = index_source(store, connection, key)
        if source is None:
            raise NotFound("space_version", f"{key.space}/{key.version}")
        count = source.count()
        if count == 0:
            raise FailedPrecondition(
                f"version {key.version} of space {key.space!r} has no vectors; a search would find nothing",
                reason="SPACE_EMPTY",
            )
        if not space.centered or source.geometry.mean is not None:
            return None
        if count < MIN_VECTORS:
            raise FailedPrecondition(
                f"version {key.version} of space {key.space!r} is centred and has {count} vectors; a mean needs "
                f"{MIN_VECTORS}",
                reason="SPACE_TOO_SMALL",
            )
        total = np.zeros(space.dimensions)
        for part in source.changes(0):
            total += part.vectors.sum(axis=0, dtype=np.float64)
        return (total / count).astype(np.float32)
