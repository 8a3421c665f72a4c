"""Random histories of writes, deletions, refusals and restarts against a plain dict: the store, the directory and the
index always hold what the dict holds."""

from __future__ import annotations

import dataclasses
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from retrieval_service import conversions
from retrieval_service.catalog_registry import CatalogState
from retrieval_service.directory import Directory
from retrieval_service.item import Item, passage_hash
from retrieval_service.item_cache import ItemCache
from retrieval_service.item_store import ItemStore
from retrieval_service.item_writes import ItemWrites
from retrieval_service.space_index import Geometry, SpaceIndex
from retrieval_service.write_messages import (
    DeleteBatch,
    EncodedPassage,
    ItemsCommitted,
    NeedsEncoderError,
    UpsertBatch,
    UpsertOutcome,
)
from service_runtime.errors import RevisionConflict, ZhiyinError
from service_runtime.sql import sqlite_url
from tests.retrieval_service.fake_encoder_server import DIMENSIONS, embed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ids = st.sampled_from([f"i{n}" for n in range(12)] + ["中文", "é"])
titles = st.sampled_from(["red film", "blue song", "绿色 旅游", "a b c"])
upserts = st.lists(st.tuples(ids, titles, st.sampled_from([(), ("music",), ("film", "war")])), min_size=1, max_size=5)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.model: dict[str, tuple[str, tuple[str, ...], int]] = {}  # id -> title, categories, revision
        self.sequence = 0
        self.clock = NOW

    @initialize()
    def open(self) -> None:
        self.store = ItemStore(sqlite_url(Path(self.folder.name) / "items.sqlite3"))
        self.store.create_tables()
        with self.store.engine.begin() as connection:
            row = self.store.catalog(connection, "default") or self.store.create_catalog(connection, "default", "")
        self.writes = ItemWrites(self.store, conversions.item_from_payload, conversions.item_to_payload)
        self.catalog_id = row.catalog_id
        self.state = CatalogState(row, Directory(row.catalog_id, ItemCache(1 << 20)))
        self.index: SpaceIndex | None = None
        # Start is a replay through the same apply as live writes.
        with self.store.reading() as connection:
            items = self.store.items_after(connection, self.catalog_id, "", 1000)
            self.state.directory.load([change for row in items for change in [self._loaded(row.number, row.payload)]])
            sequence = self.store.sequence(connection, self.catalog_id)
            kinds = self.store.attribute_kinds(connection, self.catalog_id)
            self.state.directory.apply(sequence, (), kinds)
            space = self.store.space(connection, self.catalog_id)
            if space is not None:
                self.index = SpaceIndex(Geometry(DIMENSIONS, space.centering.mean, space.centering.epoch))
                for part in self.store.vector_changes(connection, self.catalog_id, 0, DIMENSIONS, page=3):
                    self.index.apply(0, part.numbers, part.vectors, part.deleted)
                self.index.sequence = sequence

    @staticmethod
    def _loaded(number: int, payload: bytes):  # type: ignore[no-untyped-def]
        from retrieval_service.directory import ItemChange

        return ItemChange(number, None, conversions.item_from_payload(payload), payload)

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def _apply(self, done: ItemsCommitted) -> None:
        if done.change is None:
            return
        if done.change.recentered or self.index is None:
            assert done.space is not None
            with self.store.reading() as connection:
                centering = done.space.centering
                self.index = SpaceIndex(Geometry(DIMENSIONS, centering.mean, centering.epoch))
                for part in self.store.vector_changes(connection, self.catalog_id, 0, DIMENSIONS):
                    self.index.apply(0, part.numbers, part.vectors, part.deleted)
                self.index.sequence = done.change.sequence
        else:
            self.index.apply(done.change.sequence, done.change.numbers, done.change.vectors, done.change.deleted)
        self.state.directory.apply(done.change.sequence, done.items, done.kinds)

    def _upsert(self, batch: UpsertBatch) -> UpsertOutcome:
        encoded: dict[bytes, EncodedPassage] = {}
        self.clock += timedelta(seconds=1)
        while True:
            try:
                with self.store.engine.begin() as connection:
                    done = self.writes.commit_upsert(connection, self.state.row, batch, encoded, self.clock)
                break
            except NeedsEncoderError as error:
                for passage in error.passages:
                    encoded[passage_hash(passage)] = EncodedPassage(embed(passage), False, "space")
        self._apply(done)
        assert isinstance(done.outcome, UpsertOutcome)
        return done.outcome

    @rule(entries=upserts)
    def upsert(self, entries: list[tuple[str, str, tuple[str, ...]]]) -> None:
        unique = {item_id: (title, categories) for item_id, title, categories in entries}
        items = tuple(Item(i, title, categories=categories) for i, (title, categories) in unique.items())
        outcome = self._upsert(UpsertBatch("default", items))
        self.sequence += 1
        assert outcome.sequence == self.sequence
        for result, (item_id, (title, categories)) in zip(outcome.results, unique.items(), strict=True):
            new = item_id not in self.model
            revision = self.sequence if new else self.model[item_id][2] + 1
            assert (result.item_id, result.revision, result.created) == (item_id, revision, new)
            self.model[item_id] = (title, categories, revision)

    @rule(item_id=ids, categories=st.sampled_from([(), ("x",)]))
    def change_categories(self, item_id: str, categories: tuple[str, ...]) -> None:
        batch = UpsertBatch("default", (Item(item_id, categories=categories),), mask=frozenset({"categories"}))
        if item_id not in self.model:
            with pytest.raises(ZhiyinError, match="does not exist"):
                self._upsert(batch)
            return
        self._upsert(batch)
        title, _, revision = self.model[item_id]
        self.model[item_id] = (title, categories, revision + 1)
        self.sequence += 1

    @rule(first=ids, second=ids, title=titles)
    def refused_batch_changes_nothing(self, first: str, second: str, title: str) -> None:
        if first == second:
            return
        revision = self.model[first][2] if first in self.model else 0
        stale = (self.model[second][2] if second in self.model else 0) + 5
        items = (Item(first, title, revision=revision), Item(second, title, revision=stale))
        with pytest.raises(RevisionConflict):
            self._upsert(UpsertBatch("default", items, check_revision=True))

    @rule(gone=st.lists(ids, min_size=1, max_size=4))
    def delete(self, gone: list[str]) -> None:
        with self.store.engine.begin() as connection:
            done = self.writes.commit_delete(connection, self.catalog_id, DeleteBatch("default", tuple(gone)))
        self._apply(done)
        existed = {item_id for item_id in gone if item_id in self.model}
        self.sequence += bool(existed)
        for item_id in existed:
            del self.model[item_id]

    @rule(title=titles, entries=upserts)
    def repeat_a_request(self, title: str, entries: list[tuple[str, str, tuple[str, ...]]]) -> None:
        batch = UpsertBatch(
            "default", (Item(entries[0][0], title),), request_id=f"r{self.sequence}", request_hash=title.encode()
        )
        first = self._upsert(batch)
        self.sequence += 1
        assert self._upsert(dataclasses.replace(batch)) == first
        revision = self.model[entries[0][0]][2] + 1 if entries[0][0] in self.model else self.sequence
        self.model[entries[0][0]] = (title, (), revision)

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.open()

    @invariant()
    def store_directory_and_index_agree(self) -> None:
        if not hasattr(self, "store"):
            return
        with self.store.reading() as connection:
            assert self.store.sequence(connection, self.catalog_id) == self.sequence
            rows = self.store.items_after(connection, self.catalog_id, "", 1000)
            space = self.store.space(connection, self.catalog_id)
        stored = {row.item_id: conversions.item_from_payload(row.payload) for row in rows}
        assert {i: (s.title, s.categories, s.revision) for i, s in stored.items()} == self.model
        assert [row.item_id for row in rows] == sorted(self.model, key=str.encode)
        directory = self.state.directory
        assert len(directory) == len(self.model)
        assert all(directory.number(row.item_id) == row.number for row in rows)
        assert directory.sequence == self.sequence
        if self.index is not None and space is not None:
            assert len(self.index) == space.centering.count == len(self.model)
            numbers = np.asarray([row.number for row in rows], dtype=np.int64)
            fresh = SpaceIndex(Geometry(DIMENSIONS, space.centering.mean, space.centering.epoch))
            raw = np.stack([embed(stored[row.item_id].passage) for row in rows]) if rows else np.empty((0, DIMENSIONS))
            fresh.apply(1, numbers, raw.astype(np.float32), np.empty(0, np.int64))
            np.testing.assert_array_equal(self.index.vectors(numbers), fresh.vectors(numbers))


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
