"""The way of a write: plan -> encode, classify (no lock held) -> commit -> apply -> answer.

`apply` runs in the writer's thread after each commit, in commit order: first the index, then the directory, which makes
the batch visible as a whole. At start the same two are filled from the store.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from retrieval_service import metrics
from retrieval_service.catalog_registry import DEFAULT_CATALOG, CatalogRegistry, CatalogState
from retrieval_service.directory import Directory
from retrieval_service.encoder_client import TextEncoder
from retrieval_service.index_host import IndexHost
from retrieval_service.index_messages import IndexChange
from retrieval_service.item import passage_hash
from retrieval_service.item_cache import ItemCache
from retrieval_service.item_store import CatalogRow, ItemStore
from retrieval_service.item_writes import ItemWrites
from retrieval_service.space_messages import SpacesChanged, VectorsPut
from retrieval_service.upsert_plan import UpsertPlan
from retrieval_service.vector_rows import Connection
from retrieval_service.write_messages import (
    CatalogChanged,
    CatalogCreated,
    CatalogDropped,
    Committed,
    DeleteBatch,
    DeleteOutcome,
    EncodedPassage,
    ItemsCommitted,
    NeedsEncoderError,
    UpsertBatch,
    UpsertOutcome,
)
from service_runtime.errors import NotFound, RevisionConflict

T = TypeVar("T")
# How often a batch is encoded anew because other writes to the same items came in between.
_MAX_ROUNDS = 5


class WriteQueue(Protocol):
    """The one writer of the store (service_runtime.sql_writer.SqlWriter)."""

    def submit(self, write: Callable[[Connection], Committed], size_bytes: int) -> Awaitable[Committed]:
        """Commits and applies a write."""
        ...


@dataclass(slots=True)
class PreparedUpsert:
    """A batch that was planned and encoded; `plan` is of the state it was planned on."""

    batch: UpsertBatch
    plan: UpsertPlan
    encoded: dict[bytes, EncodedPassage] = field(default_factory=dict)
    inferred: dict[tuple[str, bytes], str | tuple[str, ...] | None] = field(default_factory=dict)


class CatalogWriter:
    """Writes items and catalogues.

    Args:
        store: The truth.
        writes: What writes do to it.
        queue: The one writer; it calls `apply`.
        registry: Catalogues in memory.
        host: The indexes.
        encoder: Text to vectors.
        cache: Items in memory.
        threads: For what reads the store.
    """

    def __init__(
        self,
        store: ItemStore,
        writes: ItemWrites,
        registry: CatalogRegistry,
        host: IndexHost,
        encoder: TextEncoder,
        cache: ItemCache,
        threads: Executor,
    ) -> None:
        self._store, self._writes, self._registry, self._host = store, writes, registry, host
        self._encoder, self._cache, self._threads = encoder, cache, threads
        self._queue: WriteQueue | None = None

    def use(self, queue: WriteQueue) -> None:
        """Sets the writer, which in turn needs `apply`."""
        self._queue = queue

    # ---- requests

    async def prepare(self, batch: UpsertBatch) -> PreparedUpsert:
        """Plans a batch and asks the encoder for what it lacks. Refuses before any work is spent.

        Raises:
            ZhiyinError: As UpsertPlanner.plan, or of the encoder.
        """
        state = self._registry.get(batch.catalog)

        def plan() -> UpsertPlan:
            with self._store.reading() as connection:
                return self._writes.planner.plan(connection, state.row, batch, datetime.now(UTC))

        prepared = PreparedUpsert(batch, await self._in_thread(plan))
        await self._encode(prepared, prepared.plan.missing({}))
        await self._infer(prepared, prepared.plan.unread({}))
        return prepared

    async def commit(self, prepared: PreparedUpsert) -> UpsertOutcome:
        """Commits a prepared batch; returns when it is durable and searchable.

        Raises:
            ZhiyinError: As ItemWrites.commit_upsert, or of the writer or the encoder.
        """
        batch = prepared.batch
        for _ in range(_MAX_ROUNDS):

            def write(connection: Connection) -> Committed:
                row = self.catalog(connection, batch.catalog)
                now = datetime.now(UTC)
                return self._writes.commit_upsert(connection, row, batch, prepared.encoded, now, prepared.inferred)

            try:
                done = await self.submit(write, batch.size_bytes)
            except NeedsEncoderError as error:
                await self._encode(prepared, error.passages)
                await self._infer(prepared, error.unread)
                continue
            assert isinstance(done, ItemsCommitted)
            assert isinstance(done.outcome, UpsertOutcome)
            self._count_inferred(batch.catalog, done)
            return done.outcome
        raise RevisionConflict("the items keep being changed by others while they are encoded; try again")

    async def delete(self, batch: DeleteBatch) -> DeleteOutcome:
        """Deletes items; returns when that is durable and no search finds them."""

        def write(connection: Connection) -> Committed:
            row = self.catalog(connection, batch.catalog)
            return self._writes.commit_delete(connection, row.catalog_id, batch)

        done = await self.submit(write, batch.size_bytes)
        assert isinstance(done, ItemsCommitted)
        assert isinstance(done.outcome, DeleteOutcome)
        return done.outcome

    async def create_catalog(self, name: str, display_name: str, max_items: int) -> CatalogRow:
        """Makes a catalogue; the same one again changes nothing."""

        def write(connection: Connection) -> Committed:
            return self._writes.create_catalog(connection, name, display_name, max_items)

        done = await self.submit(write, 256)
        assert isinstance(done, CatalogCreated)
        return done.row

    async def change_catalog(self, name: str, settings: Mapping[str, Any]) -> CatalogRow:
        """Changes some settings, by the names of `CatalogRow`; returns all of them."""

        def write(connection: Connection) -> Committed:
            row = dataclasses.replace(self.catalog(connection, name), **settings)
            return self._writes.change_catalog(connection, row)

        done = await self.submit(write, 256)
        assert isinstance(done, CatalogChanged)
        return done.row

    async def drop_catalog(self, name: str) -> int:
        """Drops a catalogue for good; returns how many items went with it. `default` is emptied and stays."""

        def write(connection: Connection) -> Committed:
            row = self.catalog(connection, name)
            return self._writes.drop_catalog(connection, row, keep_empty=name == DEFAULT_CATALOG)

        done = await self.submit(write, 256)
        assert isinstance(done, CatalogDropped)
        return done.deleted_items

    async def forget_deletions(self, catalog_id: int, up_to: int) -> None:
        """Drops deletion marks that a snapshot has made superfluous."""

        def write(connection: Connection) -> Committed:
            self._store.forget_deletions(connection, catalog_id, up_to)
            return None

        await self.submit(write, 64)

    # ---- after the commit

    def apply(self, committed: Sequence[Committed]) -> None:
        """Brings index and directory in step with the store. In the writer's thread, in commit order."""
        for done in committed:
            match done:
                case ItemsCommitted():
                    self._apply_items(done)
                case CatalogCreated():
                    self._apply_created(done)
                case CatalogChanged(row):
                    state = self._registry.find(row.catalog_id)
                    if state is not None:
                        state.row = row
                case CatalogDropped(catalog_id, _, successor):
                    self._registry.drop(catalog_id)
                    if successor is not None:
                        self._apply_created(successor)
                    self._host.drop_catalog(catalog_id)
                case SpacesChanged():
                    self._apply_spaces(done)
                case VectorsPut(change):
                    self._apply_put(change)
                case _:
                    pass

    def _apply_created(self, done: CatalogCreated) -> None:
        if done.sequence is not None:
            directory = Directory(done.row.catalog_id, self._cache)
            directory.sequence = done.sequence
            self._registry.put(CatalogState(done.row, directory))

    def _apply_items(self, done: ItemsCommitted) -> None:
        if done.change is None:
            return
        change = done.change
        state = self._registry.find(change.catalog_id)
        if state is None:
            return  # dropped by a later write of the same group
        for each in (change, *done.followed):
            self._host.apply(each)
        if done.space is not None:
            state.space = done.space
        state.directory.apply(change.sequence, done.items, done.kinds)
        for item in done.items:
            outcome = "deleted" if item.new is None else "created" if item.old is None else "changed"
            metrics.ITEMS_WRITTEN.labels(outcome).inc()

    def _apply_spaces(self, done: SpacesChanged) -> None:
        state = self._registry.find(done.key.catalog_id)
        if state is None:
            return
        state.spaces = done.spaces
        if done.sequence is not None:
            state.directory.apply(done.sequence, (), {})
        if done.dropped:
            self._host.drop(done.key)

    def _apply_put(self, change: IndexChange) -> None:
        state = self._registry.find(change.catalog_id)
        if state is not None:
            self._host.apply(change)
            state.directory.apply(change.sequence, (), {})

    # ---- parts

    def catalog(self, connection: Connection, name: str) -> CatalogRow:
        """The catalogue as this transaction sees it: an earlier write of the group may have dropped it.

        Raises:
            NotFound: There is none of that name.
        """
        row = self._store.catalog(connection, name)
        if row is None:
            raise NotFound("catalog", name)
        return row

    async def _encode(self, prepared: PreparedUpsert, passages: Sequence[str]) -> None:
        if not passages:
            return
        encoded = await self._encoder.passages(passages)
        for passage, vector, truncated in zip(passages, encoded.vectors, encoded.truncated, strict=True):
            prepared.encoded[passage_hash(passage)] = EncodedPassage(vector, truncated, encoded.fingerprint)

    async def _infer(self, prepared: PreparedUpsert, unread: Mapping[str, Sequence[str]]) -> None:
        for name, passages in unread.items():
            attribute = self._writes.planner.inferences.of(prepared.batch.catalog).attributes[name]
            answers = await self._encoder.classify(attribute.labels, passages)
            for passage, probabilities in zip(passages, answers, strict=True):
                prepared.inferred[name, passage_hash(passage)] = attribute.value(probabilities)

    def _count_inferred(self, catalog: str, done: ItemsCommitted) -> None:
        # Not every mark: callers may bring marks of other names along.
        for name in self._writes.planner.inferences.of(catalog).attributes:
            count = sum(change.new is not None and name in change.new.inferred for change in done.items)
            metrics.INFERRED.labels(name).inc(count)

    async def submit(self, write: Callable[[Connection], Committed], size_bytes: int) -> Committed:
        """Commits and applies a write.

        Raises:
            ZhiyinError: Whatever the write raised, or the writer.
        """
        assert self._queue is not None
        return await self._queue.submit(write, size_bytes)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
