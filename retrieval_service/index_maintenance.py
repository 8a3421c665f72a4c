"""Decides when an index needs a snapshot or a rebuild, and has it made: one at a time, in the background.

A graph is only ever built by the snapshot process, never by the worker that serves: a growing catalogue is compared
exactly until its first snapshot holds a graph and a successor has taken over. Dead rows and a renewed mean are mended
the same way. A small catalogue has neither graph nor snapshot: filling it from the store takes moments.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from retrieval_service import metrics, snapshot
from retrieval_service.index_host import IndexHost
from retrieval_service.index_messages import IndexFigures
from retrieval_service.named_spaces import IndexKey
from retrieval_service.snapshot import SnapshotDamagedError
from retrieval_service.snapshot_process import SnapshotFailedError, build_snapshot
from retrieval_service.worker_client import WorkerFailedError, WorkerGoneError
from service_runtime.errors import StoreUnavailable
from service_runtime.telemetry import get_logger

_log = get_logger(__name__)

_PERIOD_S = 1.0
_AFTER_FAILURE_S = 5.0
_BUILD_TIMEOUT_S = 6 * 3600.0
# Fewer dead rows than this are never worth a rebuild.
_MIN_TOMBSTONES = 256


@dataclass(frozen=True, slots=True)
class MaintenanceSettings:
    """When what is due.

    Attributes:
        graph_min_vectors: From so many vectors on a graph is used; below, comparing exactly is as fast.
        rebuild_above: Share of dead rows, in (0,1], above which an index is rebuilt.
        snapshot_every_writes: A snapshot is due after so many changed vectors ...
        snapshot_every_s: ... or after so many seconds in which anything changed.
        snapshot_at_close_s: Seconds that snapshots at a stop may take in all; 0: none are made.
    """

    graph_min_vectors: int = 10_000
    rebuild_above: float = 0.2
    snapshot_every_writes: int = 50_000
    snapshot_every_s: float = 600.0
    snapshot_at_close_s: float = 15.0


class Action(Enum):
    """What an index needs."""

    NOTHING = "nothing"
    REFILL = "refill"
    """Small: fill it anew from the store."""
    SNAPSHOT = "snapshot"
    TAKE_OVER = "take over"
    """A snapshot, and a successor that loads it."""


def due(figures: IndexFigures, wanted_epoch: int, age_s: float, settings: MaintenanceSettings) -> Action:
    """What an index needs now. Pure.

    Args:
        figures: What is known of it.
        wanted_epoch: Of the mean, as the store says.
        age_s: Seconds since a snapshot was last tried.
        settings: When what is due.
    """
    rows = figures.live + figures.tombstones
    too_dead = figures.tombstones > max(settings.rebuild_above * rows, _MIN_TOMBSTONES)
    if not figures.has_graph and figures.live < settings.graph_min_vectors:
        return Action.REFILL if too_dead else Action.NOTHING
    if too_dead or not figures.has_graph or figures.epoch != wanted_epoch:
        return Action.TAKE_OVER
    changed = figures.changed_since_snapshot
    if changed >= settings.snapshot_every_writes or (changed and age_s >= settings.snapshot_every_s):
        return Action.SNAPSHOT
    return Action.NOTHING


class IndexMaintenance:
    """A thread that keeps indexes in shape.

    Args:
        host: Of the indexes.
        database_url: Of the item store, for the snapshot process.
        settings: When what is due.
        on_snapshot: Told, after each new snapshot, catalogue and sequence of the oldest one that an index of it starts
            from: older deletion marks are not needed any more.
    """

    def __init__(
        self,
        host: IndexHost,
        database_url: str,
        settings: MaintenanceSettings,
        on_snapshot: Callable[[int, int], None] = lambda catalog_id, sequence: None,
    ) -> None:
        self._host, self._database_url, self._settings = host, database_url, settings
        self._on_snapshot = on_snapshot
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="index-maintenance", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends what is under way, then makes last snapshots where something changed."""
        self._closing.set()
        self._host.changed.set()
        if self._thread.is_alive():
            self._thread.join()
        until = time.monotonic() + self._settings.snapshot_at_close_s
        for key, figures in self._host.known():
            left = until - time.monotonic()
            if figures.has_graph and figures.changed_since_snapshot and left > 0:
                self._snapshot(key, figures, left, stop=None)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._host.changed.wait(timeout=_PERIOD_S)
            self._host.changed.clear()
            if self._closing.wait(timeout=0.05):  # lets a burst of writes pass as one
                return
            try:
                for key, figures in self._host.known():
                    self._look_after(key, figures)
            except (WorkerGoneError, WorkerFailedError, StoreUnavailable, OSError, TimeoutError) as error:
                # The watcher replaces a dead worker; everything else is tried again in a while.
                _log.warning("index_maintenance_failed", error=repr(error))
                self._closing.wait(timeout=_AFTER_FAILURE_S)

    def _look_after(self, key: IndexKey, figures: IndexFigures) -> None:
        age_s = time.monotonic() - figures.snapshot_tried_at
        wanted = self._host.wanted_epoch(key) if figures.has_graph else figures.epoch
        action = due(figures, wanted, age_s, self._settings)
        if action is Action.REFILL:
            self._host.refill(key, figures)
        elif action is not Action.NOTHING:
            _log.info("index_maintenance", index=str(key), action=action.value)
            made = self._snapshot(key, figures, _BUILD_TIMEOUT_S, self._closing)
            if made and action is Action.TAKE_OVER:
                self._host.take_over()
            elif not made:
                self._closing.wait(timeout=_AFTER_FAILURE_S)

    def _snapshot(self, key: IndexKey, figures: IndexFigures, timeout_s: float, stop: threading.Event | None) -> bool:
        """Makes a snapshot; returns whether there is a new one."""
        figures.snapshot_tried_at = time.monotonic()
        before = figures.changed_since_snapshot
        folder = self._host.folder(key)
        try:
            report = build_snapshot(
                self._database_url,
                key,
                folder,
                rebuild_above=self._settings.rebuild_above,
                timeout_s=timeout_s,
                stop=stop,
            )
            figures.snapshot = snapshot.newest(folder)
        except (SnapshotFailedError, SnapshotDamagedError) as error:
            if key in dict(self._host.known()) and (stop is None or not stop.is_set()):
                metrics.SNAPSHOT_FAILURES.inc()
                self._host.notice(key.catalog_id, f"a snapshot could not be made: {error}")
            return False
        figures.changed_since_snapshot -= before
        metrics.SNAPSHOT_SECONDS.observe(report.seconds)
        _log.info("snapshot_made", index=str(key), **dataclasses.asdict(report))
        self._on_snapshot(key.catalog_id, self._host.oldest_snapshot(key.catalog_id))
        return True
