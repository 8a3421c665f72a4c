"""Random histories of items and vector spaces against numpy: every live version holds what the plain computation gives.

The machine of `test_store_model` writes, deletes, refuses and restarts; this one makes, fills, publishes and retires
versions in between.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from numpy.typing import NDArray

from retrieval_service.index_messages import IndexChange
from retrieval_service.index_source import index_source
from retrieval_service.item import Item
from retrieval_service.named_spaces import COSINE, INNER_PRODUCT, IndexKey, NamedSpace
from retrieval_service.space_index import IndexQuery, SpaceIndex
from retrieval_service.space_messages import NewProjection, NewSpaceVersion, SpacesChanged, VectorBatch
from retrieval_service.space_writer import mean_to_fix
from retrieval_service.space_writes import SpaceWrites
from retrieval_service.write_messages import ItemsCommitted, UpsertBatch
from service_runtime.errors import FailedPrecondition, InvalidRequest
from tests.retrieval_service.fake_encoder_server import DIMENSIONS, embed
from tests.retrieval_service.space_steps import linear
from tests.retrieval_service.test_store_model import StoreMachine

SIZE, MAX_VERSIONS = 5, 3
numbers = st.integers(0, 2**32 - 1)
kinds = st.sampled_from([(INNER_PRODUCT, False), (COSINE, False), (COSINE, True)])
QUERY = np.linspace(-1.0, 1.0, SIZE, dtype=np.float32)


@dataclasses.dataclass
class Version:
    """A version as numpy has it."""

    key: IndexKey
    metric: str
    centered: bool
    weights: NDArray[np.float32] | None
    bias: NDArray[np.float32]
    source_mean: NDArray[np.float32] | None
    put: dict[str, NDArray[np.float64]] = dataclasses.field(default_factory=dict)
    mean: NDArray[np.float64] | None = None
    published: bool = False

    def raw(self, titles: dict[str, str]) -> dict[str, NDArray[np.float64]]:
        """Every item's vector as the space takes it in."""
        found: dict[str, NDArray[np.float64]] = {}
        if self.weights is not None:
            for item_id, title in titles.items():
                source = embed(title).astype(np.float64)
                if self.source_mean is not None:
                    source = source - self.source_mean
                found[item_id] = self.weights @ (source / np.linalg.norm(source)) + self.bias
        found |= self.put
        if self.metric == COSINE:
            found = {item_id: vector / np.linalg.norm(vector) for item_id, vector in found.items()}
        return found

    def compared(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.metric != COSINE:
            return vector
        shifted = vector / np.linalg.norm(vector) - (0 if self.mean is None else self.mean)
        return shifted / np.linalg.norm(shifted)


class SpaceMachine(StoreMachine):
    @initialize()
    def open(self) -> None:
        super().open()
        self.space_writes = SpaceWrites(self.store, self.writes.follower, MAX_VERSIONS)
        with self.store.reading() as connection:
            self.state.spaces = self.store.named_spaces(connection, self.catalog_id)
        if hasattr(self, "versions"):
            self.indexes = {key: self._filled(key) for key in self.versions}
            return
        self.versions: dict[IndexKey, Version] = {}
        self.used: set[int] = set()
        self.indexes: dict[IndexKey, SpaceIndex] = {}
        self._write_all("film")
        self._create(INNER_PRODUCT, centered=False, derived=True, own_mean=False, seed=0)

    def _filled(self, key: IndexKey) -> SpaceIndex:
        with self.store.reading() as connection:
            source = index_source(self.store, connection, key)
            assert source is not None
            index = SpaceIndex(source.geometry)
            for part in source.changes(0):
                index.apply(0, part.numbers, part.vectors, part.deleted)
            index.sequence = self.store.sequence(connection, self.catalog_id)
            assert len(index) == source.count()
        return index

    def _index(self, change: IndexChange) -> None:
        self.indexes[change.key].apply(change.sequence, change.numbers, change.vectors, change.deleted)

    def _apply(self, done: ItemsCommitted) -> None:
        super()._apply(done)
        for change in done.followed:
            self._index(change)

    def _changed(self, done: SpacesChanged) -> None:
        self.state.spaces = done.spaces
        if done.sequence is not None:
            self.sequence = done.sequence
            self.state.directory.apply(done.sequence, (), {})

    @rule(kind=kinds, derived=st.booleans(), own_mean=st.booleans(), seed=numbers)
    def create(self, kind: tuple[str, bool], derived: bool, own_mean: bool, seed: int) -> None:
        self._create(*kind, derived=derived, own_mean=own_mean, seed=seed)

    def _create(self, metric: str, centered: bool, *, derived: bool, own_mean: bool, seed: int) -> None:
        weights, bias = linear(seed, SIZE)
        mean = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32) if own_mean else None
        projection = NewProjection(weights, bias, mean, "") if derived else None
        space = NamedSpace("a", 0, SIZE, metric, centered, "model", "semantic" if derived else "")
        new = NewSpaceVersion("default", space, projection)
        with self.store.reading() as connection:
            semantic = self.store.space(connection, self.catalog_id)
        if len(self.versions) == MAX_VERSIONS or (derived and semantic is None):
            with self.store.engine.connect() as connection, pytest.raises(FailedPrecondition):
                self.space_writes.create(connection, self.state.row, new)
            return
        with self.store.engine.begin() as connection:
            done = self.space_writes.create(connection, self.state.row, new)
        assert done.sequence == self.sequence + 1 == done.key.version
        assert done.key.version not in self.used
        self.used.add(done.key.version)
        self._changed(done)
        present = None if semantic is None else semantic.centering.mean
        self.versions[done.key] = Version(
            done.key, metric, centered, weights if derived else None, bias, mean if own_mean else present
        )
        self.indexes[done.key] = self._filled(done.key)

    @rule(pick=numbers, count=st.integers(1, 8), ghosts=st.sampled_from([(), (), (), ("ghost",)]), seed=numbers)
    def put(self, pick: int, count: int, ghosts: tuple[str, ...], seed: int) -> None:
        here = sorted(self.model)
        items = [here[(seed + 7 * i) % len(here)] for i in range(min(count, len(here)))] if here else []
        items = [*dict.fromkeys(items), *ghosts]
        if not self.versions or not items:
            return
        version = self.versions[sorted(self.versions)[pick % len(self.versions)]]
        rows = np.random.default_rng(seed).standard_normal((len(items), SIZE)).astype(np.float32)
        space = self.state.spaces.version(version.key.space, version.key.version)
        batch = VectorBatch("default", space.space, space.version, tuple(items), space.entering(rows))
        if not set(items) <= set(self.model):
            with self.store.engine.connect() as connection, pytest.raises(InvalidRequest) as refused:
                self.space_writes.put(connection, self.state.row, batch)
            named = {violation.field for violation in refused.value.violations}
            assert named == {f"item_ids[{i}]" for i, item_id in enumerate(items) if item_id not in self.model}
            return
        with self.store.engine.begin() as connection:
            done = self.space_writes.put(connection, self.state.row, batch)
        self._index(done.change)
        self.sequence += 1
        self.state.directory.apply(done.change.sequence, (), {})
        version.put.update(zip(items, rows.astype(np.float64), strict=True))

    @rule(pick=numbers)
    def publish(self, pick: int) -> None:
        if not self.versions:
            return
        version = self.versions[sorted(self.versions)[pick % len(self.versions)]]
        space = self.state.spaces.version(version.key.space, version.key.version)
        raw = version.raw({item_id: title for item_id, (title, *_) in self.model.items()})
        if not raw or (version.centered and version.mean is None and len(raw) < 16):
            with pytest.raises(FailedPrecondition):
                mean_to_fix(self.store, version.key, space)
            return
        mean = mean_to_fix(self.store, version.key, space)
        assert (mean is not None) == (version.centered and version.mean is None)
        with self.store.engine.begin() as connection:
            if mean is not None:
                version.mean = np.mean(list(raw.values()), axis=0)
                np.testing.assert_allclose(mean, version.mean, atol=1e-5)
                self.space_writes.fix_mean(connection, self.state.row, space.space, space.version, mean)
            self._changed(self.space_writes.publish(connection, self.state.row, space.space, space.version))
        if mean is not None:
            self.indexes[version.key] = self._filled(version.key)
        for each in self.versions.values():
            each.published = each is version

    @rule(pick=numbers)
    def retire(self, pick: int) -> None:
        if not self.versions:
            return
        key = sorted(self.versions)[pick % len(self.versions)]
        if self.versions[key].published:
            with self.store.engine.connect() as connection, pytest.raises(FailedPrecondition):
                self.space_writes.retire(connection, self.state.row, key.space, key.version)
            return
        with self.store.engine.begin() as connection:
            self._changed(self.space_writes.retire(connection, self.state.row, key.space, key.version))
        del self.versions[key], self.indexes[key]

    @rule(word=st.sampled_from(["film", "song"]))
    def write_all(self, word: str) -> None:
        self._write_all(word)

    def _write_all(self, word: str) -> None:
        """So many items that a mean can be fixed, with the same words or with others."""
        names = [*(f"i{n}" for n in range(12)), "中文", "é", *(f"j{n}" for n in range(10))]
        items = tuple(Item(item_id, f"{word} {item_id}") for item_id in names)
        outcome = self._upsert(UpsertBatch("default", items))
        self.sequence = outcome.sequence
        self.model.update({r.item_id: (f"{word} {r.item_id}", (), r.revision) for r in outcome.results})

    def _forget_deleted(self) -> None:
        for version in self.versions.values():
            version.put = {item_id: vector for item_id, vector in version.put.items() if item_id in self.model}

    @invariant()
    def every_version_is_what_numpy_says(self) -> None:
        if not hasattr(self, "indexes"):
            return
        self._forget_deleted()
        assert {(s.space, s.version): s.published for s in self.state.spaces} == {
            (key.space, key.version): version.published for key, version in self.versions.items()
        }
        titles = {item_id: title for item_id, (title, *_) in self.model.items()}
        for key, version in self.versions.items():
            raw, index = version.raw(titles), self.indexes[key]
            assert len(index) == len(raw)
            known = {item_id: self.state.directory.number(item_id) for item_id in titles}
            held = index.vectors(np.asarray(list(known.values()), dtype=np.int64))
            query = version.compared(QUERY.astype(np.float64))
            scores = {}
            for item_id, row in zip(known, held, strict=True):
                wanted = version.compared(raw[item_id]) if item_id in raw else np.zeros(SIZE)
                np.testing.assert_allclose(row, wanted, atol=2e-4)
                if item_id in raw:
                    scores[known[item_id]] = float(wanted @ query)
            asked = [IndexQuery(limit=5, vector=QUERY / np.linalg.norm(QUERY) if version.metric == COSINE else QUERY)]
            if scores:
                (hits,), _ = index.search(asked)
                best = sorted(scores.values(), reverse=True)[:5]
                np.testing.assert_allclose(np.asarray(hits.scores)[:5], best, atol=2e-3)
                (given,) = index.scores(asked, np.asarray([*scores, 10_000], dtype=np.int64))
                np.testing.assert_allclose(given, [*scores.values(), np.nan], atol=2e-3)


TestSpaces = SpaceMachine.TestCase
TestSpaces.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
