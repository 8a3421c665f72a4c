"""What a write does to the store, inside one transaction. No network, no event loop.

The plan (`upsert_plan`) is made again where it counts. When another write came in between and a passage is now without
a vector or an inferred attribute, the commit says so and the caller asks the encoder for what is missing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval_service import centering
from retrieval_service.centering import CenteringState
from retrieval_service.directory import ItemChange
from retrieval_service.index_messages import IndexChange
from retrieval_service.inference.inferred_attribute import NO_INFERENCE, InferenceBook, Inferred
from retrieval_service.item import Item
from retrieval_service.item_store import CatalogRow, ItemRow, ItemStore
from retrieval_service.space_follower import SpaceFollower
from retrieval_service.upsert_plan import UpsertPlanner, remembered
from retrieval_service.vector_rows import Connection, SpaceRow
from retrieval_service.write_messages import (
    CatalogChanged,
    CatalogCreated,
    CatalogDropped,
    DeleteBatch,
    DeleteOutcome,
    EncodedPassage,
    ItemsCommitted,
    ItemWrite,
    NeedsEncoderError,
    UpsertBatch,
    UpsertOutcome,
)
from service_runtime.errors import (
    AlreadyExists,
    FailedPrecondition,
    SpaceMismatch,
)


class ItemWrites:
    """Plans and commits writes.

    Args:
        store: The truth.
        read_item: Payload to item.
        write_item: Item to payload.
        max_items: Items any catalogue may have; 0: no limit.
        max_catalogs: Catalogues there may be; 0: no limit.
        inferences: What is inferred from items.
    """

    def __init__(
        self,
        store: ItemStore,
        read_item: Callable[[bytes], Item],
        write_item: Callable[[Item], bytes],
        max_items: int = 0,
        max_catalogs: int = 0,
        inferences: InferenceBook = NO_INFERENCE,
    ) -> None:
        self._store, self._read_item, self._write_item = store, read_item, write_item
        self._max_catalogs = max_catalogs
        self.follower = SpaceFollower(store)
        self.planner = UpsertPlanner(store, read_item, max_items, inferences)

    # ---- upserts

    def commit_upsert(
        self,
        connection: Connection,
        catalog: CatalogRow,
        batch: UpsertBatch,
        encoded: Mapping[bytes, EncodedPassage],
        now: datetime,
        inferred: Inferred = MappingProxyType({}),
    ) -> ItemsCommitted:
        """Writes a batch. Everything derived follows from what it returns.

        Raises:
            NeedsEncoderError: Another write came in between; encode what is missing.
            SpaceMismatch: The encoder has another model than the one the space was made with.
            ZhiyinError: As `UpsertPlanner.plan`.
        """
        catalog_id = catalog.catalog_id
        plan = self.planner.plan(connection, catalog, batch, now)
        if plan.replay is not None:
            return ItemsCommitted(None, (), {}, None, plan.replay)
        missing, unread = plan.missing(encoded), plan.unread(inferred)
        if missing or unread:
            raise NeedsEncoderError(missing, unread)
        fresh = [entry for entry in plan.entries if entry.needs_vector]
        space = self._space_for(connection, catalog_id, [encoded[entry.hash] for entry in fresh])
        created = sum(entry.row is None for entry in plan.entries)
        sequence, number = self._store.take_sequence(connection, catalog_id, created)
        rows: list[ItemRow] = []
        changes: list[ItemChange] = []
        for entry in plan.entries:
            revision = entry.new.revision if entry.row is not None else sequence
            item = dataclasses.replace(entry.new, revision=revision, sequence=sequence)
            if entry.open_names:
                item = plan.inference.complete(item, entry.open_names, entry.hash, inferred)
            if entry.needs_vector:
                truncated = encoded[entry.hash].truncated
            else:
                truncated = entry.row is not None and entry.row.text_truncated
            own = entry.row.number if entry.row is not None else number
            number += entry.row is None
            payload = self._write_item(item)
            rows.append(ItemRow(item.id, own, item.revision, sequence, entry.hash, truncated, payload))
            changes.append(ItemChange(own, entry.old, item, payload))
        new_ids = {entry.new.id for entry in plan.entries if entry.row is None}
        self._store.put_items(connection, catalog_id, rows, new_ids)
        self._store.add_attribute_kinds(connection, catalog_id, plan.kinds)
        numbers = [row.number for row, entry in zip(rows, plan.entries, strict=True) if entry.needs_vector]
        dimensions = space.dimensions if space is not None else 0
        vectors = np.empty((0, dimensions), dtype=np.float32)
        recentered = False
        followed: tuple[IndexChange, ...] = ()
        if fresh and space is not None:
            vectors = np.stack([encoded[entry.hash].vector for entry in fresh])
            replaced = [entry.row.number for entry in fresh if entry.row is not None]
            removed = self._store.vectors(connection, catalog_id, replaced, dimensions)
            space, recentered = self._recenter(connection, catalog_id, space, vectors, removed)
            new_numbers = set(numbers) - set(replaced)
            self._store.put_vectors(connection, catalog_id, sequence, numbers, vectors, new_numbers)
            followed = self.follower.written(connection, catalog_id, sequence, numbers, vectors, replaced)
        results = tuple(
            ItemWrite(row.item_id, row.revision, row.item_id in new_ids, row.text_truncated) for row in rows
        )
        outcome = UpsertOutcome(sequence, results)
        if batch.request_id:
            response = {"sequence": sequence, "results": [dataclasses.astuple(result) for result in results]}
            self._remember(connection, catalog_id, batch.request_id, batch.request_hash, response)
        change = IndexChange(
            catalog_id, sequence, np.asarray(numbers, np.int64), vectors, np.empty(0, np.int64), recentered
        )
        return ItemsCommitted(change, tuple(changes), plan.kinds, space, outcome, followed)

    def _space_for(self, connection: Connection, catalog_id: int, fresh: Sequence[EncodedPassage]) -> SpaceRow | None:
        """The space that fresh vectors belong to; the first vectors of a catalogue make it."""
        space = self._store.space(connection, catalog_id)
        if not fresh:
            return space
        if space is None:
            dimensions = len(fresh[0].vector)
            state = CenteringState(0, np.zeros(dimensions), None, 0, 0)
            space = SpaceRow(fresh[0].fingerprint, dimensions, "cosine", state)
            self._store.put_space(connection, catalog_id, space, new=True)
        for passage in fresh:
            if passage.fingerprint != space.fingerprint or len(passage.vector) != space.dimensions:
                raise SpaceMismatch(expected=space.fingerprint, actual=passage.fingerprint)
        return space

    def _recenter(
        self,
        connection: Connection,
        catalog_id: int,
        space: SpaceRow,
        added: NDArray[np.float32],
        removed: NDArray[np.float32],
    ) -> tuple[SpaceRow, bool]:
        state, renewed = centering.after_write(space.centering, added, removed)
        space = dataclasses.replace(space, centering=state)
        self._store.put_space(connection, catalog_id, space, new=False)
        return space, renewed

    # ---- deletions

    def commit_delete(self, connection: Connection, catalog_id: int, batch: DeleteBatch) -> ItemsCommitted:
        """Deletes a batch; unknown ids are reported, no error.

        Raises:
            AlreadyExists: The request id was used for another request.
        """
        replay = remembered(self._store, connection, catalog_id, batch.request_id, batch.request_hash)
        if replay is not None:
            outcome = DeleteOutcome(replay["sequence"], replay["deleted"], tuple(replay["missing"]))
            return ItemsCommitted(None, (), {}, None, outcome)
        ids = list(dict.fromkeys(batch.item_ids))
        rows = self._store.items(connection, catalog_id, ids)
        missing = tuple(item_id for item_id in ids if item_id not in rows)
        found = [rows[item_id] for item_id in ids if item_id in rows]
        change, changes, space = None, [], None
        followed: tuple[IndexChange, ...] = ()
        if found:
            sequence, _ = self._store.take_sequence(connection, catalog_id)
            space = self._store.space(connection, catalog_id)
            numbers = [row.number for row in found]
            recentered = False
            if space is not None:
                removed = self._store.vectors(connection, catalog_id, numbers, space.dimensions)
                nothing = np.empty((0, space.dimensions), dtype=np.float32)
                space, recentered = self._recenter(connection, catalog_id, space, nothing, removed)
                change = IndexChange(
                    catalog_id, sequence, np.empty(0, np.int64), nothing, np.asarray(numbers, np.int64), recentered
                )
            self._store.delete_items(connection, catalog_id, sequence, found)
            followed = self.follower.deleted(connection, catalog_id, sequence, numbers)
            changes = [ItemChange(row.number, self._read_item(row.payload), None) for row in found]
        else:
            sequence = self._store.sequence(connection, catalog_id)
        outcome = DeleteOutcome(sequence, len(found), missing)
        if batch.request_id:
            response = {"sequence": sequence, "deleted": len(found), "missing": missing}
            self._remember(connection, catalog_id, batch.request_id, batch.request_hash, response)
        return ItemsCommitted(change, tuple(changes), {}, space, outcome, followed)

    # ---- catalogues

    def create_catalog(
        self, connection: Connection, name: str, display_name: str, max_items: int = 0
    ) -> CatalogCreated:
        """Makes a catalogue; the same one again changes nothing.

        Raises:
            AlreadyExists: There is one of that name with other settings.
            FailedPrecondition: There are as many as there may be.
        """
        row = self._store.catalog(connection, name)
        if row is not None:
            if (row.display_name, row.max_items) != (display_name, max_items):
                raise AlreadyExists("catalog", name)
            return CatalogCreated(row)
        if self._max_catalogs and len(self._store.catalogs(connection)) >= self._max_catalogs:
            raise FailedPrecondition(
                f"there are {self._max_catalogs} catalogues, as many as the server allows; drop one first",
                reason="TOO_MANY_CATALOGS",
            )
        row = self._store.create_catalog(connection, name, display_name, max_items)
        return CatalogCreated(row, self._store.sequence(connection, row.catalog_id))

    def change_catalog(self, connection: Connection, row: CatalogRow) -> CatalogChanged:
        """Gives a catalogue other settings."""
        self._store.change_catalog(connection, row)
        return CatalogChanged(row)

    def drop_catalog(self, connection: Connection, row: CatalogRow, *, keep_empty: bool) -> CatalogDropped:
        """Drops a catalogue; with `keep_empty` an empty one takes its place."""
        count = self._store.drop_catalog(connection, row.catalog_id)
        successor = self._recreated(connection, row) if keep_empty else None
        return CatalogDropped(row.catalog_id, count, successor)

    def _recreated(self, connection: Connection, row: CatalogRow) -> CatalogCreated:
        new = self._store.create_catalog(connection, row.name, row.display_name, row.max_items)
        return CatalogCreated(new, self._store.sequence(connection, new.catalog_id))

    # ---- repeated requests

    def _remember(
        self, connection: Connection, catalog_id: int, request_id: str, request_hash: bytes, response: dict[str, Any]
    ) -> None:
        body = json.dumps(response, ensure_ascii=False).encode()
        self._store.remember_request(connection, catalog_id, request_id, request_hash, body)
