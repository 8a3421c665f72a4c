"""Keeps a worker process with all indexes alive and in step with the store.

One path fills an index, whatever the occasion (start, killed worker, takeover, renewed mean): load the newest valid
snapshot or begin with nothing, then replay the store. Writes go to the worker after they are committed; when the
worker dies in between, its successor reads them from the store. Snapshots are made by a short-lived process. A
takeover is blue/green: the successor loads and catches up beside the old one, and traffic switches between two writes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from retrieval_service import metrics, snapshot
from retrieval_service.item_store import Connection, ItemStore, SpaceRow
from retrieval_service.search_plan import Plan
from retrieval_service.snapshot import SnapshotDamagedError, SnapshotInfo
from retrieval_service.worker_client import IndexWorkerProcess, WorkerFailedError, WorkerGoneError
from service_runtime.errors import DependencyUnavailable
from service_runtime.telemetry import get_logger

_log = get_logger(__name__)

_START_ATTEMPTS = 3
# A restart shorter than this is not worth leaving the load balancer for: calls wait for it.
_RESTART_GRACE_S = 2.0
_MAINTENANCE_PERIOD_S = 1.0
_PING_TIMEOUT_S = 15.0
_BUILD_TIMEOUT_S = 6 * 3600.0
_MIN_TOMBSTONES = 256


@dataclass(frozen=True, slots=True)
class IndexHostSettings:
    """How indexes are kept.

    Attributes:
        folder: Of the snapshots; a folder a catalogue is made in it.
        graph_min_vectors: From so many vectors on a graph is used; below, comparing exactly is as fast.
        rebuild_above: Share of dead rows, in (0,1], above which an index is rebuilt.
        snapshot_every_writes: A snapshot is due after so many changed vectors ...
        snapshot_every_s: ... or after so many seconds in which anything changed.
        snapshot_at_close_s: Seconds that snapshots at a stop may take in all; 0: none are made.
    """

    folder: Path
    graph_min_vectors: int = 10_000
    rebuild_above: float = 0.2
    snapshot_every_writes: int = 50_000
    snapshot_every_s: float = 600.0
    snapshot_at_close_s: float = 15.0


@dataclass(frozen=True, slots=True)
class IndexChange:
    """A committed write as the index sees it.

    Attributes:
        catalog_id: The catalogue.
        sequence: Of the write.
        numbers: Items with a new vector.
        vectors: Raw, shape (n, dimensions).
        deleted: Items that are gone.
        recentered: Whether the write renewed the mean of the space.
    """

    catalog_id: int
    sequence: int
    numbers: NDArray[np.int64]
    vectors: NDArray[np.float32]
    deleted: NDArray[np.int64]
    recentered: bool = False


@dataclass(frozen=True, slots=True)
class HostQuery:
    """One query for the worker; `vector` raw, `examples` as item numbers and weights, `allowed` None: all."""

    limit: int
    vector: NDArray[np.float32] | None
    examples: Sequence[tuple[int, float]]
    allowed: BitMap | None
    denied: Sequence[int]
    exact: bool


@dataclass(frozen=True, slots=True)
class HostHits:
    """Item numbers and scores, best first, with ties of the last; `vector` as the space compares it."""

    numbers: list[int]
    scores: list[float]
    plan: Plan
    vector: NDArray[np.float32]


@dataclass(slots=True)
class IndexFigures:
    """What is known of one index; as of the last write or look."""

    sequence: int = 0
    live: int = 0
    tombstones: int = 0
    epoch: int = 0
    has_graph: bool = False
    graph_backlog: int = 0
    snapshot: SnapshotInfo | None = None
    changed_since_snapshot: int = 0
    snapshot_looked_at: float = field(default_factory=time.monotonic)


class IndexHost:
    """Owns the index worker. All methods block; call them from threads.

    Args:
        store: The truth.
        settings: How indexes are kept.
        on_snapshot: Told catalogue and sequence of each new snapshot: older deletion marks are not needed any more.
        on_fatal: Told when no worker can be had; the process should end.
    """

    def __init__(
        self,
        store: ItemStore,
        settings: IndexHostSettings,
        *,
        on_snapshot: Callable[[int, int], None] = lambda catalog_id, sequence: None,
        on_fatal: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._store, self._settings = store, settings
        self._on_snapshot, self._on_fatal = on_snapshot, on_fatal
        self._worker: IndexWorkerProcess | None = None
        self._figures: dict[int, IndexFigures] = {}
        self._notices: deque[tuple[int | None, str]] = deque(maxlen=64)
        self.restarts = 0
        self._changing = threading.RLock()  # held while the worker is written to or replaced
        self._switched = threading.Condition()
        self._down_since: float | None = time.monotonic()
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._maintenance = threading.Thread(target=self._maintain, name="index-maintenance", daemon=True)

    # ---- life

    def start(self, catalog_ids: Sequence[int]) -> None:
        """Starts a worker with the indexes of these catalogues; returns when they are searchable."""
        with self._changing:
            self._figures = {catalog_id: IndexFigures() for catalog_id in catalog_ids}
            self._switch_to(self._filled_worker())
        self._maintenance.start()

    def close(self) -> None:
        """Makes last snapshots where something changed, then ends the worker."""
        self._closing.set()
        self._wake.set()
        if self._maintenance.is_alive():
            self._maintenance.join()
        until = time.monotonic() + self._settings.snapshot_at_close_s
        for catalog_id, figures in self._figures.items():
            left = until - time.monotonic()
            if figures.has_graph and figures.changed_since_snapshot and left > 0:
                self._build_snapshot(catalog_id, timeout_s=left)
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def readiness(self) -> str | None:
        """Why searches cannot be answered; None while they can, or will within moments."""
        down = self._down_since
        if down is not None and time.monotonic() - down > _RESTART_GRACE_S:
            return "the index worker is being restarted"
        return None

    # ---- writes, in commit order

    def apply(self, change: IndexChange) -> None:
        """Makes a committed write searchable, on a new worker when the old one dies.

        Raises:
            WorkerGoneError: No worker can be had.
            WorkerFailedError: The worker refuses the write, which it must not.
        """
        with self._changing:
            figures = self._figures.setdefault(change.catalog_id, IndexFigures())
            figures.changed_since_snapshot += len(change.numbers) + len(change.deleted)
            worker = self._live_worker()
            try:
                self._apply_to(worker, change, figures)
            except WorkerGoneError:
                self._replace(worker)  # the successor reads the write from the store
        self._wake.set()

    def drop(self, catalog_id: int) -> None:
        """Forgets an index and its snapshots."""
        with self._changing:
            self._figures.pop(catalog_id, None)
            worker = self._live_worker()
            try:
                worker.call({"op": "drop", "key": str(catalog_id)})
            except WorkerGoneError:
                self._replace(worker)
            shutil.rmtree(self._folder(catalog_id), ignore_errors=True)

    def _apply_to(self, worker: IndexWorkerProcess, change: IndexChange, figures: IndexFigures) -> None:
        if change.recentered and not figures.has_graph:
            # Every vector changes: fill a second index beside the first and let it take the first one's place.
            self._fill(worker, change.catalog_id, figures, fresh=True)
            return
        frame = {"op": "apply", "key": str(change.catalog_id), "sequence": change.sequence}
        try:
            reply, _ = worker.call(frame, (change.numbers, change.vectors, change.deleted))
        except WorkerFailedError as error:
            if error.kind != "unknown_index":
                raise
            self._fill(worker, change.catalog_id, figures, fresh=False)  # its first vectors
        else:
            _take_figures(figures, reply)

    # ---- reads

    def search(
        self, catalog_id: int, queries: Sequence[HostQuery], timeout_s: float
    ) -> tuple[list[HostHits], int] | None:
        """Answers queries over one state, with that state's sequence; None: the catalogue has no index yet.

        Raises:
            DependencyUnavailable: No worker answered in time.
        """
        filters: dict[int, int] = {}
        blobs: list[NDArray[np.uint8]] = []
        vectors = [query.vector for query in queries if query.vector is not None]
        asked, taken = [], 0
        for query in queries:
            position = -1
            if query.allowed is not None:
                position = filters.setdefault(id(query.allowed), len(blobs))
                if position == len(blobs):
                    blobs.append(np.frombuffer(query.allowed.serialize(), dtype=np.uint8))
            asked.append(
                {
                    "limit": query.limit,
                    "vector": taken if query.vector is not None else -1,
                    "examples": list(query.examples),
                    "filter": position,
                    "denied": list(query.denied),
                    "exact": query.exact,
                }
            )
            taken += query.vector is not None
        matrix = np.stack(vectors) if vectors else np.empty((0, 0), dtype=np.float32)
        answer = self._ask(
            {"op": "search", "key": str(catalog_id), "queries": asked}, (matrix, *blobs), timeout_s=timeout_s
        )
        if answer is None:
            return None
        reply, (numbers, scores, transformed) = answer
        hits, start = [], 0
        for count, plan, vector in zip(reply["counts"], reply["plans"], transformed, strict=True):
            end = start + count
            hits.append(HostHits(numbers[start:end].tolist(), scores[start:end].tolist(), Plan(plan), vector))
            start = end
        return hits, reply["sequence"]

    def vectors(self, catalog_id: int, numbers: Sequence[int], timeout_s: float) -> NDArray[np.float16] | None:
        """Vectors of items as the space compares them, zeros where there is none; None: no index yet."""
        frame = {"op": "vectors", "key": str(catalog_id)}
        answer = self._ask(frame, (np.asarray(numbers, dtype=np.int64),), timeout_s=timeout_s)
        return None if answer is None else answer[1][0]

    def figures(self, catalog_id: int) -> IndexFigures:
        """What is known of an index, as of now."""
        figures = self._figures.get(catalog_id, IndexFigures())
        answer = self._ask({"op": "stats", "key": str(catalog_id)}, (), timeout_s=5.0)
        if answer is not None:
            _take_figures(figures, answer[0])
        return figures

    def notices(self, catalog_id: int) -> list[str]:
        """Problems found and mended since the start, of this catalogue or of all."""
        return [text for of, text in self._notices if of in (None, catalog_id)]

    def _ask(self, frame: dict[str, Any], arrays: Sequence[NDArray[Any]], timeout_s: float) -> Any:
        """Asks the worker, and once more its successor when it dies."""
        deadline = time.monotonic() + timeout_s
        worker = self._worker
        for last in (False, True):
            if worker is None:
                worker = self._wait_for_successor(None, deadline - time.monotonic())
            try:
                return worker.call(frame, arrays, timeout_s=max(deadline - time.monotonic(), 0.001))
            except WorkerFailedError as error:
                if error.kind == "unknown_index":
                    return None
                raise
            except TimeoutError:
                raise DependencyUnavailable("index_worker", "did not answer in time") from None
            except WorkerGoneError as error:
                if last:
                    raise DependencyUnavailable("index_worker", str(error)) from None
                worker = self._wait_for_successor(worker, deadline - time.monotonic())
        raise AssertionError("unreachable")

    def _wait_for_successor(self, gone: IndexWorkerProcess | None, timeout_s: float) -> IndexWorkerProcess:
        with self._switched:
            self._switched.wait_for(lambda: self._worker is not None and self._worker is not gone, max(timeout_s, 0))
            worker = self._worker
        if worker is None or worker is gone:
            raise DependencyUnavailable("index_worker", "is being restarted", retry_after_s=1.0)
        return worker

    # ---- filling an index

    def _filled_worker(self) -> IndexWorkerProcess:
        """A new worker with every index, in step with the store as of now."""
        worker = IndexWorkerProcess()
        try:
            for catalog_id, figures in list(self._figures.items()):
                self._fill(worker, catalog_id, figures, fresh=False)
        except BaseException:
            worker.close()
            raise
        return worker

    def _fill(self, worker: IndexWorkerProcess, catalog_id: int, figures: IndexFigures, *, fresh: bool) -> None:
        """Loads the newest snapshot unless `fresh`, replays the store, and puts the index in its place."""
        key = f"{catalog_id}:filling"
        with self._store.reading() as connection:
            space = self._store.space(connection, catalog_id)
            if space is None:
                return
            after = 0 if fresh else self._load_snapshot(worker, catalog_id, key, space, figures)
            if not after:
                mean = space.centering.mean
                worker.call(
                    {
                        "op": "open",
                        "key": key,
                        "dimensions": space.dimensions,
                        "epoch": space.centering.epoch,
                        "normalize": True,
                    },
                    () if mean is None else (mean,),
                )
            self._replay(worker, connection, catalog_id, key, after, space.dimensions, figures)
        worker.call({"op": "move", "key": key, "to": str(catalog_id)})

    def _replay(
        self,
        worker: IndexWorkerProcess,
        connection: Connection,
        catalog_id: int,
        key: str,
        after: int,
        dimensions: int,
        figures: IndexFigures,
    ) -> None:
        """Sends what the store knows beyond `after`, through the same frames as live writes."""
        for part in self._store.vector_changes(connection, catalog_id, after, dimensions):
            worker.call({"op": "apply", "key": key, "sequence": 0}, (part.numbers, part.vectors, part.deleted))
        nothing, no_rows = np.empty(0, np.int64), np.empty((0, dimensions), np.float32)
        head = self._store.sequence(connection, catalog_id)
        reply, _ = worker.call({"op": "apply", "key": key, "sequence": head}, (nothing, no_rows, nothing))
        _take_figures(figures, {**reply, "sequence": head})

    def _load_snapshot(
        self, worker: IndexWorkerProcess, catalog_id: int, key: str, space: SpaceRow, figures: IndexFigures
    ) -> int:
        """Loads the newest snapshot that is whole; returns its sequence, 0 when there is none."""
        folder = self._folder(catalog_id)
        figures.snapshot = None
        try:
            info = snapshot.newest(folder)
            if info is None:
                return 0
            frame = {
                "op": "load",
                "key": key,
                "path": str(info.path),
                "dimensions": space.dimensions,
                "normalize": True,
            }
            worker.call(frame)
        except (SnapshotDamagedError, WorkerFailedError) as error:
            if isinstance(error, WorkerFailedError) and error.kind == "unknown_index":
                raise
            self._notice(catalog_id, f"the snapshot was damaged and the index is rebuilt from the store: {error}")
            snapshot.prune(folder, keep=None)
            return 0
        figures.snapshot = info
        return info.sequence

    # ---- replacing the worker

    def _live_worker(self) -> IndexWorkerProcess:
        worker = self._worker
        if worker is None:
            raise WorkerGoneError("there is no index worker")
        return worker

    def _switch_to(self, worker: IndexWorkerProcess) -> None:
        with self._switched:
            self._worker = worker
            self._down_since = None
            self._switched.notify_all()
        threading.Thread(target=self._watch, args=(worker,), name="index-worker-watch", daemon=True).start()

    def _watch(self, worker: IndexWorkerProcess) -> None:
        """Waits for the worker to end; replaces it when nobody else has."""
        code = worker.wait()
        with self._switched:
            if self._closing.is_set() or self._worker is not worker:
                return
            self._down_since = time.monotonic()
        try:
            with self._changing:
                if self._worker is worker and not self._closing.is_set():
                    _log.error("index_worker_died", exit_code=code)
                    self._replace(worker)
        except Exception as error:
            _log.critical("index_worker_lost", error=repr(error))
            self._on_fatal(error)

    def _replace(self, worker: IndexWorkerProcess) -> None:
        """Puts a filled successor in the place of a dead worker. Holds `_changing`."""
        with self._switched:
            self._down_since = self._down_since or time.monotonic()
        started = time.monotonic()
        worker.close()
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                successor = self._filled_worker()
                break
            except (WorkerGoneError, WorkerFailedError) as error:
                _log.error("index_worker_start_failed", attempt=attempt, error=str(error))
                if attempt == _START_ATTEMPTS:
                    raise
                time.sleep(0.2 * attempt)
        self.restarts += 1
        metrics.WORKER_RESTARTS.inc()
        seconds = time.monotonic() - started
        self._notice(None, f"the index worker died and was restarted within {seconds:.1f} s")
        self._switch_to(successor)

    def _take_over(self) -> None:
        """Blue/green: fills a successor beside the serving worker, catches up, switches, ends the old one."""
        started = time.monotonic()
        with self._changing:
            catalog_ids = list(self._figures)
        figures = {catalog_id: IndexFigures() for catalog_id in catalog_ids}
        successor = IndexWorkerProcess()
        try:
            for catalog_id, own in figures.items():
                self._fill(successor, catalog_id, own, fresh=False)
            with self._changing:
                for catalog_id, live in list(self._figures.items()):
                    own = figures.setdefault(catalog_id, IndexFigures())
                    if own.sequence == 0:
                        self._fill(successor, catalog_id, own, fresh=False)
                    else:
                        self._catch_up(successor, catalog_id, own)
                    own.changed_since_snapshot = live.changed_since_snapshot
                    self._figures[catalog_id] = own
                for dropped in figures.keys() - self._figures.keys():
                    successor.call({"op": "drop", "key": str(dropped)})
                old = self._worker
                self._switch_to(successor)
        except BaseException:
            if self._worker is not successor:
                successor.close()
            raise
        if old is not None:
            old.drain()
            old.close()
        _log.info("index_taken_over", seconds=round(time.monotonic() - started, 3))

    def _catch_up(self, worker: IndexWorkerProcess, catalog_id: int, figures: IndexFigures) -> None:
        with self._store.reading() as connection:
            space = self._store.space(connection, catalog_id)
            if space is not None:
                key, after = str(catalog_id), figures.sequence
                self._replay(worker, connection, catalog_id, key, after, space.dimensions, figures)

    # ---- maintenance: snapshots and rebuilds, one at a time

    def _maintain(self) -> None:
        pinged = time.monotonic()
        while not self._closing.is_set():
            self._wake.wait(timeout=_MAINTENANCE_PERIOD_S)
            self._wake.clear()
            if self._closing.wait(timeout=0.05):  # lets a burst of writes pass as one
                return
            try:
                if time.monotonic() - pinged > _MAINTENANCE_PERIOD_S:
                    pinged = time.monotonic()
                    self._end_when_hung()
                for catalog_id, figures in list(self._figures.items()):
                    self._maintain_one(catalog_id, figures)
            except (WorkerGoneError, WorkerFailedError, OSError, LookupError, TimeoutError) as error:
                # The watcher replaces a dead worker; everything else is tried again in a while.
                _log.warning("index_maintenance_failed", error=repr(error))
                self._closing.wait(timeout=5.0)

    def _maintain_one(self, catalog_id: int, figures: IndexFigures) -> None:
        settings = self._settings
        rows = figures.live + figures.tombstones
        too_dead = figures.tombstones > max(settings.rebuild_above * rows, _MIN_TOMBSTONES)
        wants_graph = figures.live >= settings.graph_min_vectors
        if not figures.has_graph and not wants_graph:
            if too_dead:
                with self._changing:
                    self._fill(self._live_worker(), catalog_id, figures, fresh=True)
            return
        if too_dead or not figures.has_graph or figures.epoch != self._wanted_epoch(catalog_id):
            if self._build_snapshot(catalog_id):
                self._take_over()
            return
        changed = figures.changed_since_snapshot
        age = time.monotonic() - figures.snapshot_looked_at
        if changed >= settings.snapshot_every_writes or (changed and age >= settings.snapshot_every_s):
            self._build_snapshot(catalog_id)

    def _wanted_epoch(self, catalog_id: int) -> int:
        with self._store.reading() as connection:
            space = self._store.space(connection, catalog_id)
        return 0 if space is None else space.centering.epoch

    def _end_when_hung(self) -> None:
        worker = self._worker
        if worker is None:
            return
        try:
            worker.call({"op": "ping"}, timeout_s=_PING_TIMEOUT_S)
        except TimeoutError:
            _log.error("index_worker_hangs", seconds=_PING_TIMEOUT_S)
            worker.kill()

    def _build_snapshot(self, catalog_id: int, timeout_s: float = _BUILD_TIMEOUT_S) -> bool:
        """Runs the snapshot process; returns whether there is a new snapshot."""
        figures = self._figures.get(catalog_id)
        if figures is None:
            return False
        figures.snapshot_looked_at = time.monotonic()
        before = figures.changed_since_snapshot
        command = [sys.executable, "-m", "retrieval_service.snapshot_builder"]
        command += ["--database-url", self._store.url, "--catalog-id", str(catalog_id)]
        command += ["--folder", str(self._folder(catalog_id))]
        command += ["--rebuild-above", str(self._settings.rebuild_above)]
        builder = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
        out, err = self._finish(builder, timeout_s)
        if builder.returncode != 0:
            if not self._closing.is_set():
                tail = err.decode(errors="replace").strip().splitlines()[-1:]
                reason = tail[0] if tail else f"exit code {builder.returncode}"
                self._notice(catalog_id, f"a snapshot could not be made: {reason}")
                _log.warning("snapshot_failed", catalog_id=catalog_id, reason=reason)
            return False
        report = json.loads(out)
        figures.snapshot = snapshot.newest(self._folder(catalog_id))
        figures.changed_since_snapshot -= before
        metrics.SNAPSHOT_SECONDS.observe(report["seconds"])
        _log.info("snapshot_made", catalog_id=catalog_id, **report)
        self._on_snapshot(catalog_id, report["sequence"])
        return True

    def _finish(self, builder: subprocess.Popen[bytes], timeout_s: float) -> tuple[bytes, bytes]:
        """Waits for the snapshot process; ends it when time is over or, in the background, when the service stops."""
        background = threading.current_thread() is self._maintenance
        until = time.monotonic() + timeout_s
        while True:
            try:
                # Without closing its standard input, which would end it.
                builder.wait(timeout=0.2 if background else max(until - time.monotonic(), 0.01))
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() >= until or (background and self._closing.is_set()):
                    builder.kill()
        assert builder.stdin is not None
        builder.stdin.close()
        builder.stdin = None
        return builder.communicate()

    def _folder(self, catalog_id: int) -> Path:
        return self._settings.folder / str(catalog_id)

    def _notice(self, catalog_id: int | None, text: str) -> None:
        _log.warning("notice", catalog_id=catalog_id, text=text)
        self._notices.append((catalog_id, text))


def _take_figures(figures: IndexFigures, reply: dict[str, Any]) -> None:
    figures.sequence, figures.live, figures.tombstones = reply["sequence"], reply["live"], reply["tombstones"]
    figures.epoch, figures.has_graph = reply["epoch"], reply["has_graph"]
    figures.graph_backlog = reply["graph_backlog"]
