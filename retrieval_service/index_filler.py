"""Fills an index in a worker from the newest snapshot and the store: the one path for every occasion.

Start, killed worker, takeover and renewed mean all come through here, and what is replayed goes through the same frames
as live writes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from retrieval_service import metrics, snapshot
from retrieval_service.index_messages import IndexFigures
from retrieval_service.item_store import ItemStore
from retrieval_service.snapshot import SnapshotDamagedError
from retrieval_service.snapshot_origin import snapshot_origin
from retrieval_service.vector_rows import Connection, SpaceRow
from retrieval_service.worker_client import IndexWorkerProcess, WorkerFailedError
from service_runtime.errors import StoreUnavailable

_PAUSE_S = 0.5
_PATIENCE_S = 60.0


class IndexFiller:
    """Fills indexes.

    Args:
        store: The truth.
        folder: Of the snapshots; a folder a catalogue is in it.
        notice: Told catalogue and text of a problem that was found and mended.
    """

    def __init__(self, store: ItemStore, folder: Path, notice: Callable[[int, str], None]) -> None:
        self._store, self._folder, self._notice = store, folder, notice

    def folder(self, catalog_id: int) -> Path:
        """Where the snapshots of a catalogue are."""
        return self._folder / str(catalog_id)

    def forget_others(self, catalog_ids: Collection[int]) -> None:
        """Drops snapshots of catalogues that are gone: one may have been under way when its catalogue was dropped."""
        known = {str(catalog_id) for catalog_id in catalog_ids}
        for path in self._folder.glob("*"):
            if path.is_dir() and path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    def fill(
        self, worker: IndexWorkerProcess, catalog_id: int, figures: IndexFigures, *, from_snapshot: bool = True
    ) -> None:
        """Makes the worker's index of a catalogue hold what the store holds, in place of one it may have.

        A catalogue without vectors gets no index.

        Args:
            worker: Where.
            catalog_id: The catalogue.
            figures: Filled in.
            from_snapshot: False: every vector is sent anew, as after a renewal of the mean.

        Raises:
            WorkerGoneError: The worker died.
            StoreUnavailable: The store was away for too long.
        """
        _patiently(lambda: self._fill(worker, catalog_id, figures, from_snapshot))

    def _fill(self, worker: IndexWorkerProcess, catalog_id: int, figures: IndexFigures, from_snapshot: bool) -> None:
        key = f"{catalog_id}:filling"
        with self._store.reading() as connection:
            space = self._store.space(connection, catalog_id)
            if space is None:
                return
            after = self._load_snapshot(worker, connection, catalog_id, key, space, figures) if from_snapshot else 0
            if not after:
                mean = space.centering.mean
                frame = {
                    "op": "open",
                    "key": key,
                    "dimensions": space.dimensions,
                    "epoch": space.centering.epoch,
                    "normalize": True,
                }
                worker.call(frame, () if mean is None else (mean,))
            replayed = self._replay(worker, connection, catalog_id, key, after, space.dimensions, figures)
            figures.changed_since_snapshot = replayed
            in_step = not after or figures.live == space.centering.count
        if not in_step and figures.snapshot is not None:
            # Such as an old snapshot that was put back: the marks of items deleted since may be gone by now.
            why = "with what was written after it, it is not what the store holds"
            self._discard(catalog_id, figures.snapshot.path, why)
            figures.snapshot = None
            self._fill(worker, catalog_id, figures, from_snapshot=False)
            return
        worker.call({"op": "move", "key": key, "to": str(catalog_id)})

    def catch_up(self, worker: IndexWorkerProcess, catalog_id: int, figures: IndexFigures) -> None:
        """Brings a filled index up to the store's present state."""
        _patiently(lambda: self._catch_up(worker, catalog_id, figures))

    def _catch_up(self, worker: IndexWorkerProcess, catalog_id: int, figures: IndexFigures) -> None:
        with self._store.reading() as connection:
            space = self._store.space(connection, catalog_id)
            if space is not None:
                key, after = str(catalog_id), figures.sequence
                self._replay(worker, connection, catalog_id, key, after, space.dimensions, figures)

    def wanted_epoch(self, catalog_id: int) -> int:
        """The epoch of the mean that the store says."""
        with self._store.reading() as connection:
            space = self._store.space(connection, catalog_id)
        return 0 if space is None else space.centering.epoch

    def _replay(
        self,
        worker: IndexWorkerProcess,
        connection: Connection,
        catalog_id: int,
        key: str,
        after: int,
        dimensions: int,
        figures: IndexFigures,
    ) -> int:
        """Sends what the store knows beyond `after`; returns how many vectors that were."""
        count = 0
        for part in self._store.vector_changes(connection, catalog_id, after, dimensions):
            worker.call({"op": "apply", "key": key, "sequence": 0}, (part.numbers, part.vectors, part.deleted))
            count += len(part.numbers) + len(part.deleted)
        nothing, no_rows = np.empty(0, np.int64), np.empty((0, dimensions), np.float32)
        head = self._store.sequence(connection, catalog_id)
        reply, _ = worker.call({"op": "apply", "key": key, "sequence": head}, (nothing, no_rows, nothing))
        figures.take({**reply, "sequence": head})
        return count

    def _load_snapshot(
        self,
        worker: IndexWorkerProcess,
        connection: Connection,
        catalog_id: int,
        key: str,
        space: SpaceRow,
        figures: IndexFigures,
    ) -> int:
        """Loads the newest snapshot that is whole and of this catalogue; returns its sequence, 0 when there is none."""
        folder = self.folder(catalog_id)
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
                frame = {"op": "load", "key": key, "path": str(path), "dimensions": space.dimensions}
                worker.call({**frame, "normalize": True})
            except (SnapshotDamagedError, WorkerFailedError) as error:
                if path.exists():  # else a newer one has just taken its place
                    self._discard(catalog_id, path, str(error))
                if path.exists():  # on a disk that is read-only
                    return 0
                continue
            figures.snapshot = info
            return info.sequence
        return 0

    def _discard(self, catalog_id: int, path: Path, why: str) -> None:
        metrics.SNAPSHOTS_DISCARDED.inc()
        self._notice(
            catalog_id, f"a snapshot was damaged or of something else, and the index is rebuilt from the store: {why}"
        )
        shutil.rmtree(path, ignore_errors=True)


def _patiently(fill: Callable[[], None]) -> None:
    """What is committed must become searchable, also when the store goes away just then: waits until it is back."""
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return fill()
        except StoreUnavailable:
            if time.monotonic() > give_up:
                raise
            time.sleep(_PAUSE_S)
