"""Fills an index in a worker from the newest snapshot and the store: the one path for every occasion.

Start, killed worker, takeover and renewed mean all come through here, and what is replayed goes through the same frames
as live writes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import numpy as np

from retrieval_service import metrics, snapshot
from retrieval_service.index_messages import IndexFigures
from retrieval_service.index_source import IndexSource, index_source
from retrieval_service.item_store import ItemStore
from retrieval_service.named_spaces import IndexKey
from retrieval_service.snapshot import SnapshotDamagedError
from retrieval_service.snapshot_origin import snapshot_origin
from retrieval_service.vector_rows import Connection
from retrieval_service.worker_client import IndexWorkerProcess, WorkerFailedError
from service_runtime.errors import StoreUnavailable

T = TypeVar("T")
_PAUSE_S = 0.5
_PATIENCE_S = 60.0


class IndexFiller:
    """Fills indexes.

    Args:
        store: The truth.
        folder: Of the snapshots; a folder an index is in it.
        notice: Told catalogue and text of a problem that was found and mended.
    """

    def __init__(self, store: ItemStore, folder: Path, notice: Callable[[int, str], None]) -> None:
        self._store, self._folder, self._notice = store, folder, notice

    def folder(self, key: IndexKey) -> Path:
        """Where the snapshots of an index are."""
        return self._folder / str(key)

    def forget_others(self, keys: Collection[IndexKey]) -> None:
        """Drops snapshots of indexes that are gone: one may have been under way when its catalogue was dropped."""
        known = {str(key) for key in keys}
        for path in self._folder.glob("*"):
            if path.is_dir() and path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    def fill(
        self, worker: IndexWorkerProcess, key: IndexKey, figures: IndexFigures, *, from_snapshot: bool = True
    ) -> None:
        """Makes the worker's index hold what the store holds, in place of one it may have.

        A catalogue without vectors gets no semantic index, and a version that was retired none at all.

        Args:
            worker: Where.
            key: Of the index.
            figures: Filled in.
            from_snapshot: False: every vector is sent anew, as after a renewal of the mean.

        Raises:
            WorkerGoneError: The worker died.
            StoreUnavailable: The store was away for too long.
        """
        if self.prepare(worker, key, figures, from_snapshot=from_snapshot):
            self.put_in_place(worker, key)

    def prepare(
        self, worker: IndexWorkerProcess, key: IndexKey, figures: IndexFigures, *, from_snapshot: bool = True
    ) -> bool:
        """As `fill`, beside the index that the worker may have; returns whether there is anything to put in place."""
        return _patiently(lambda: self._prepare(worker, key, figures, from_snapshot))

    def put_in_place(self, worker: IndexWorkerProcess, key: IndexKey) -> None:
        """Lets a prepared index take the place of the one that is searched."""
        worker.call({"op": "move", "key": _filling(key), "to": str(key)})

    def finish(self, worker: IndexWorkerProcess, key: IndexKey, figures: IndexFigures) -> bool:
        """Brings a prepared index up to the store's present state, while nobody writes; whether it still has a use."""
        return _patiently(lambda: self._finish(worker, key, figures))

    def _finish(self, worker: IndexWorkerProcess, key: IndexKey, figures: IndexFigures) -> bool:
        with self._store.reading() as connection:
            source = index_source(self._store, connection, key)
            if source is None:
                worker.call({"op": "drop", "key": _filling(key)})
                return False
            self._replay(worker, connection, key, _filling(key), figures.sequence, source, figures)
            in_step = figures.live == source.count()
        # Marks of deletions may have been forgotten meanwhile, by a snapshot of another index.
        return in_step or self.prepare(worker, key, figures, from_snapshot=False)

    def _prepare(self, worker: IndexWorkerProcess, key: IndexKey, figures: IndexFigures, from_snapshot: bool) -> bool:
        filling = _filling(key)
        with self._store.reading() as connection:
            source = index_source(self._store, connection, key)
            if source is None:
                return False
            after = self._load_snapshot(worker, connection, key, source, figures) if from_snapshot else 0
            if not after:
                geometry = source.geometry
                frame = {
                    "op": "open",
                    "key": filling,
                    "dimensions": geometry.dimensions,
                    "epoch": geometry.epoch,
                    "normalize": geometry.normalize,
                }
                worker.call(frame, () if geometry.mean is None else (geometry.mean,))
            figures.changed_since_snapshot = self._replay(worker, connection, key, filling, after, source, figures)
            in_step = not after or figures.live == source.count()
        if not in_step and figures.snapshot is not None:
            # Such as an old snapshot that was put back: the marks of items deleted since may be gone by now.
            why = "with what was written after it, it is not what the store holds"
            self._discard(key, figures.snapshot.path, why)
            figures.snapshot = None
            return self._prepare(worker, key, figures, from_snapshot=False)
        return True

    def catch_up(self, worker: IndexWorkerProcess, key: IndexKey, figures: IndexFigures) -> None:
        """Brings a filled index up to the store's present state."""
        _patiently(lambda: self._catch_up(worker, key, figures))

    def _catch_up(self, worker: IndexWorkerProcess, key: IndexKey, figures: IndexFigures) -> None:
        with self._store.reading() as connection:
            source = index_source(self._store, connection, key)
            if source is not None:
                self._replay(worker, connection, key, str(key), figures.sequence, source, figures)

    def wanted_epoch(self, key: IndexKey) -> int:
        """The epoch of the mean that the store says."""
        with self._store.reading() as connection:
            source = index_source(self._store, connection, key)
            return 0 if source is None else source.geometry.epoch

    def _replay(
        self,
        worker: IndexWorkerProcess,
        connection: Connection,
        key: IndexKey,
        name: str,
        after: int,
        source: IndexSource,
        figures: IndexFigures,
    ) -> int:
        """Sends what the store knows beyond `after`; returns how many vectors that were."""
        count = 0
        for part in source.changes(after):
            worker.call({"op": "apply", "key": name, "sequence": 0}, (part.numbers, part.vectors, part.deleted))
            count += len(part.numbers) + len(part.deleted)
        nothing, no_rows = np.empty(0, np.int64), np.empty((0, source.geometry.dimensions), np.float32)
        head = self._store.sequence(connection, key.catalog_id)
        reply, _ = worker.call({"op": "apply", "key": name, "sequence": head}, (nothing, no_rows, nothing))
        figures.take({**reply, "sequence": head})
        return count

    def _load_snapshot(
        self,
        worker: IndexWorkerProcess,
        connection: Connection,
        key: IndexKey,
        source: IndexSource,
        figures: IndexFigures,
    ) -> int:
        """Loads the newest snapshot that is whole and of this index; returns its sequence, 0 when there is none."""
        folder, catalog_id, geometry = self.folder(key), key.catalog_id, source.geometry
        figures.snapshot = None
        if folder.is_dir() and not any(folder.iterdir()):
            self._notice(catalog_id, "there is no snapshot any more and the index is rebuilt from the store")
        while (path := snapshot.newest_path(folder)) is not None:
            try:
                info = snapshot.read_info(path)
                if info.origin != snapshot_origin(self._store, connection, catalog_id):
                    raise SnapshotDamagedError("it is of another store")
                if info.sequence > self._store.sequence(connection, catalog_id):
                    raise SnapshotDamagedError("it is newer than the store, which was put back to an older state")
                if not key.semantic and info.epoch != geometry.epoch:
                    return 0  # from before its mean was fixed: of no use, and the next snapshot takes its place
                frame = {"op": "load", "key": _filling(key), "path": str(path), "dimensions": geometry.dimensions}
                worker.call({**frame, "normalize": geometry.normalize})
            except (SnapshotDamagedError, WorkerFailedError) as error:
                if path.exists():  # else a newer one has just taken its place
                    self._discard(key, path, str(error))
                if path.exists():  # on a disk that is read-only
                    return 0
                continue
            figures.snapshot = info
            return info.sequence
        return 0

    def _discard(self, key: IndexKey, path: Path, why: str) -> None:
        metrics.SNAPSHOTS_DISCARDED.inc()
        self._notice(
            key.catalog_id,
            f"a snapshot was damaged or of something else, and the index is rebuilt from the store: {why}",
        )
        shutil.rmtree(path, ignore_errors=True)


def _filling(key: IndexKey) -> str:
    return f"{key}:filling"


def _patiently(fill: Callable[[], T]) -> T:
    """What is committed must become searchable, also when the store goes away just then: waits until it is back."""
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return fill()
        except StoreUnavailable:
            if time.monotonic() > give_up:
                raise
            time.sleep(_PAUSE_S)
