"""What a write to the spaces beside `semantic` does to the store, inside one transaction."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
from numpy.typing import NDArray

from retrieval_service.index_messages import IndexChange
from retrieval_service.item_store import CatalogRow, ItemStore
from retrieval_service.named_spaces import SEMANTIC, IndexKey, NamedSpace, Projection
from retrieval_service.space_follower import SpaceFollower
from retrieval_service.space_messages import (
    NewProjection,
    NewSpaceVersion,
    SpacesChanged,
    VectorBatch,
    VectorsPut,
)
from retrieval_service.upsert_plan import remembered
from retrieval_service.vector_rows import Connection
from service_runtime.errors import FailedPrecondition, InvalidRequest, SpaceMismatch, Violation


class SpaceWrites:
    """Commits writes to named spaces.

    Args:
        store: The truth.
        follower: Carries writes of items over; told of versions that are made.
        max_versions: Live versions a catalogue may have.
    """

    def __init__(self, store: ItemStore, follower: SpaceFollower, max_versions: int) -> None:
        self._store, self._follower, self._max_versions = store, follower, max_versions

    def create(self, connection: Connection, catalog: CatalogRow, new: NewSpaceVersion) -> SpacesChanged:
        """Makes a version, not published.

        Raises:
            AlreadyExists: The request id was used for another request.
            NotFound: The same request made a version before, and it was retired since.
            FailedPrecondition: There are as many as there may be, or there is nothing to project from.
            SpaceMismatch: The projection is of another semantic space.
            InvalidRequest: The projection does not fit the semantic space.
        """
        catalog_id, name = catalog.catalog_id, new.space.space
        live = self._store.named_spaces(connection, catalog_id)
        replay = remembered(self._store, connection, catalog_id, new.request_id, new.request_hash)
        if replay is not None:
            there = live.version(name, replay["version"])
            return SpacesChanged(IndexKey(catalog_id, name, there.version), live)
        if len(live) >= self._max_versions:
            raise FailedPrecondition(
                f"catalogue {catalog.name!r} has {len(live)} live space versions, as many as the server allows; "
                "retire one first",
                reason="TOO_MANY_SPACE_VERSIONS",
            )
        projection = None if new.projection is None else self._projection(connection, catalog_id, new.projection)
        sequence, _ = self._store.take_sequence(connection, catalog_id)
        self._follower.expect(catalog_id)
        self._store.create_space(connection, catalog_id, dataclasses.replace(new.space, version=sequence), projection)
        if new.request_id:
            body = json.dumps({"version": sequence}).encode()
            self._store.remember_request(connection, catalog_id, new.request_id, new.request_hash, body)
        live = self._store.named_spaces(connection, catalog_id)
        return SpacesChanged(IndexKey(catalog_id, name, sequence), live, sequence)

    def _projection(self, connection: Connection, catalog_id: int, new: NewProjection) -> Projection:
        semantic = self._store.space(connection, catalog_id)
        if semantic is None:
            raise FailedPrecondition(
                f"the space {SEMANTIC!r} has no vectors to project from yet; write items first", reason="SPACE_EMPTY"
            )
        if new.fingerprint and new.fingerprint != semantic.fingerprint:
            raise SpaceMismatch(expected=semantic.fingerprint, actual=new.fingerprint)
        violations = []
        for field, dimensions in (
            ("projection.dimensions", new.matrix.shape[1]),
            ("source_mean.dimensions", semantic.dimensions if new.source_mean is None else len(new.source_mean)),
        ):
            if dimensions != semantic.dimensions:
                violations.append(Violation(field, f"is {dimensions}; {SEMANTIC} has {semantic.dimensions}"))
        if violations:
            raise InvalidRequest(violations)
        mean = semantic.centering.mean if new.source_mean is None else new.source_mean
        return Projection(new.matrix, new.bias, mean if mean is not None and mean.any() else None)

    def put(self, connection: Connection, catalog: CatalogRow, batch: VectorBatch) -> VectorsPut:
        """Puts vectors: all or none.

        Raises:
            NotFound: The version is gone.
            InvalidRequest: Items do not exist.
        """
        catalog_id = catalog.catalog_id
        self._store.named_spaces(connection, catalog_id).version(batch.space, batch.version)
        known = self._store.numbers(connection, catalog_id, batch.item_ids)
        unknown = [
            Violation(f"item_ids[{i}]", f"no item has the id {item_id!r}")
            for i, item_id in enumerate(batch.item_ids)
            if item_id not in known
        ]
        if unknown:
            raise InvalidRequest(unknown)
        numbers = [known[item_id] for item_id in batch.item_ids]
        sequence, _ = self._store.take_sequence(connection, catalog_id)
        key = IndexKey(catalog_id, batch.space, batch.version)
        self._store.put_space_vectors(connection, key, sequence, numbers, batch.vectors)
        return VectorsPut(
            IndexChange(
                catalog_id,
                sequence,
                np.asarray(numbers, dtype=np.int64),
                batch.vectors,
                np.empty(0, dtype=np.int64),
                space=batch.space,
                version=batch.version,
            )
        )

    def fix_mean(
        self, connection: Connection, catalog: CatalogRow, space: str, version: int, mean: NDArray[np.float32]
    ) -> SpacesChanged:
        """Sets the mean of a version, once and for all: one that is set stays.

        Raises:
            NotFound: The version is gone.
        """
        key, _ = self._live(connection, catalog, space, version)
        self._store.fix_space_mean(connection, key, mean)
        return SpacesChanged(key, self._store.named_spaces(connection, catalog.catalog_id))

    def publish(self, connection: Connection, catalog: CatalogRow, space: str, version: int) -> SpacesChanged:
        """Makes a version the one of its space that is searched.

        Raises:
            NotFound: The version is gone.
        """
        key, _ = self._live(connection, catalog, space, version)
        self._store.publish_space(connection, key)
        return SpacesChanged(key, self._store.named_spaces(connection, catalog.catalog_id))

    def retire(self, connection: Connection, catalog: CatalogRow, space: str, version: int) -> SpacesChanged:
        """Drops a version.

        Raises:
            NotFound: It is gone already.
            FailedPrecondition: It is the published one.
        """
        key, row = self._live(connection, catalog, space, version)
        if row.published:
            raise FailedPrecondition(
                f"version {version} of space {space!r} is published; publish another one first",
                reason="SPACE_VERSION_PUBLISHED",
            )
        self._store.drop_space(connection, key)
        return SpacesChanged(key, self._store.named_spaces(connection, catalog.catalog_id), dropped=True)

    def _live(
        self, connection: Connection, catalog: CatalogRow, space: str, version: int
    ) -> tuple[IndexKey, NamedSpace]:
        row = self._store.named_spaces(connection, catalog.catalog_id).version(space, version)
        return IndexKey(catalog.catalog_id, space, version), row
