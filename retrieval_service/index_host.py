"""Keeps a worker process with all indexes alive and in step with the store.

Writes go to the worker after they are committed; when the worker dies in between, its successor reads them from the
store. A takeover is blue/green: the successor loads and catches up beside the old one, and traffic switches between two
writes. `index_maintenance` decides when snapshots and takeovers are due.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval_service import metrics
from retrieval_service.index_filler import IndexFiller
from retrieval_service.index_messages import (
    HostHits,
    HostQuery,
    IndexChange,
    IndexFigures,
    search_answer,
    search_frame,
)
from retrieval_service.item_store import ItemStore
from retrieval_service.named_spaces import IndexKey
from retrieval_service.worker_client import IndexWorkerProcess, WorkerFailedError, WorkerGoneError
from service_runtime.errors import DependencyUnavailable
from service_runtime.telemetry import get_logger

_log = get_logger(__name__)

_START_ATTEMPTS = 3
# How long a new version waits for a worker that is being replaced.
_LOAD_WAIT_S = 30.0
# A restart shorter than this is not worth leaving the load balancer for: calls wait for it.
_RESTART_GRACE_S = 2.0
_PING_PERIOD_S = 2.0


class IndexHost:
    """Owns the index worker. All methods block; call them from threads.

    Args:
        store: The truth.
        folder: Of the snapshots.
        on_fatal: Told when no worker can be had; the process should end.
        hung_after_s: A worker that does not answer a ping for so many seconds is ended.
    """

    def __init__(
        self,
        store: ItemStore,
        folder: Path,
        *,
        on_fatal: Callable[[BaseException], None] = lambda error: None,
        hung_after_s: float = 15.0,
    ) -> None:
        self._filler = IndexFiller(store, folder, self.notice)
        self._on_fatal = on_fatal
        self._hung_after_s = hung_after_s
        self._worker: IndexWorkerProcess | None = None
        self._figures: dict[IndexKey, IndexFigures] = {}
        self._notices: deque[tuple[int | None, str]] = deque(maxlen=64)
        self.restarts = 0
        self._changing = threading.RLock()  # held while the worker is written to or replaced
        self._loading = threading.Lock()  # of one version at a time
        self._switched = threading.Condition()
        self._down_since: float | None = time.monotonic()
        self._closing = threading.Event()
        self.changed = threading.Event()
        """Set after every write; the maintenance clears it."""

    # ---- life

    def start(self, keys: Sequence[IndexKey]) -> None:
        """Starts a worker with these indexes; returns when they are searchable."""
        with self._changing:
            self._filler.forget_others(keys)
            self._figures = {key: IndexFigures() for key in keys}
            self._switch_to(self._filled_worker())

    def close(self) -> None:
        """Ends the worker."""
        self._closing.set()
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

        A version of a named space that is not loaded yet reads the write from the store when it is.

        Raises:
            WorkerGoneError: No worker can be had.
            WorkerFailedError: The worker refuses the write, which it must not.
        """
        with self._changing:
            if not change.key.semantic and change.key not in self._figures:
                return
            figures = self._figures.setdefault(change.key, IndexFigures())
            figures.changed_since_snapshot += len(change.numbers) + len(change.deleted)
            worker = self._live_worker()
            try:
                self._apply_to(worker, change, figures)
            except WorkerGoneError:
                self._replace(worker)  # the successor reads the write from the store
        self.changed.set()

    def drop(self, key: IndexKey) -> None:
        """Forgets an index and its snapshots."""
        with self._changing:
            self._figures.pop(key, None)
            worker = self._live_worker()
            try:
                worker.call({"op": "drop", "key": str(key)})
            except WorkerGoneError:
                self._replace(worker)
            shutil.rmtree(self.folder(key), ignore_errors=True)

    def drop_catalog(self, catalog_id: int) -> None:
        """Forgets all indexes of a catalogue and their snapshots."""
        with self._changing:
            for key in {IndexKey(catalog_id), *(key for key in self._figures if key.catalog_id == catalog_id)}:
                self.drop(key)

    def load(self, key: IndexKey) -> bool:
        """Makes a version of a named space searchable under its present mean; False: it is gone.

        Fills the index beside what is searched, and lets writes wait only while it catches up. Safe to call again.

        Raises:
            DependencyUnavailable: No worker stayed alive for it.
        """
        with self._loading:
            for _ in range(_START_ATTEMPTS):
                live = self._figures.get(key)
                if live is not None and live.epoch == self.wanted_epoch(key):
                    return True
                worker = self._worker or self._wait_for_successor(None, _LOAD_WAIT_S)
                try:
                    figures = IndexFigures()
                    if not self._filler.prepare(worker, key, figures, from_snapshot=False):
                        return False
                    with self._changing:
                        if self._worker is not worker:
                            continue
                        if not self._filler.finish(worker, key, figures):
                            return False
                        self._filler.put_in_place(worker, key)
                        self._figures[key] = figures
                    self.changed.set()
                    return True
                except WorkerGoneError:
                    self._wait_for_successor(worker, _LOAD_WAIT_S)
            raise DependencyUnavailable("index_worker", f"did not live long enough to load {key}")

    def _apply_to(self, worker: IndexWorkerProcess, change: IndexChange, figures: IndexFigures) -> None:
        if change.recentered and not figures.has_graph:
            # Every vector changes: fill a second index beside the first and let it take the first one's place.
            self._filler.fill(worker, change.key, figures, from_snapshot=False)
            return
        frame = {"op": "apply", "key": str(change.key), "sequence": change.sequence}
        try:
            reply, _ = worker.call(frame, (change.numbers, change.vectors, change.deleted))
        except WorkerFailedError as error:
            if error.kind != "unknown_index":
                raise
            self._filler.fill(worker, change.key, figures)  # its first vectors
        else:
            figures.take(reply)

    # ---- reads

    def search(
        self, key: IndexKey, queries: Sequence[HostQuery], timeout_s: float
    ) -> tuple[list[HostHits], int] | None:
        """Answers queries over one state, with that state's sequence; None: there is no such index (yet).

        Raises:
            DependencyUnavailable: No worker answered in time.
        """
        queries_asked, arrays = search_frame(queries)
        frame = {"op": "search", "key": str(key), "queries": queries_asked}
        answer = self._ask(frame, arrays, timeout_s=timeout_s)
        return None if answer is None else search_answer(*answer)

    def scores(
        self, key: IndexKey, queries: Sequence[HostQuery], numbers: Sequence[int], timeout_s: float
    ) -> NDArray[np.float64] | None:
        """Scores of some items by some queries, shape (queries, items), NaN where there is none; None: no index yet."""
        queries_asked, arrays = search_frame(queries)
        frame = {"op": "scores", "key": str(key), "queries": queries_asked}
        answer = self._ask(frame, (*arrays, np.asarray(numbers, dtype=np.int64)), timeout_s=timeout_s)
        return None if answer is None else answer[1][0]

    def vectors(self, key: IndexKey, numbers: Sequence[int], timeout_s: float) -> NDArray[np.float16] | None:
        """Vectors of items as the space compares them, zeros where there is none; None: no index yet."""
        frame = {"op": "vectors", "key": str(key)}
        answer = self._ask(frame, (np.asarray(numbers, dtype=np.int64),), timeout_s=timeout_s)
        return None if answer is None else answer[1][0]

    def figures(self, key: IndexKey) -> IndexFigures:
        """What is known of an index, as of now."""
        figures = self._figures.get(key, IndexFigures())
        answer = self._ask({"op": "stats", "key": str(key)}, (), timeout_s=5.0)
        if answer is not None:
            figures.take(answer[0])
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

    # ---- replacing the worker

    def _filled_worker(self) -> IndexWorkerProcess:
        """A new worker with every index, in step with the store as of now."""
        worker = IndexWorkerProcess()
        try:
            for key, figures in list(self._figures.items()):
                self._filler.fill(worker, key, figures)
        except BaseException:
            worker.close()
            raise
        return worker

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
        """Waits for the worker to end, ends it when it hangs, and replaces it when nobody else has."""
        while (code := worker.wait(timeout_s=_PING_PERIOD_S)) is None:
            try:
                worker.call({"op": "ping"}, timeout_s=self._hung_after_s)
            except TimeoutError:
                _log.error("index_worker_hangs", seconds=self._hung_after_s)
                worker.kill()
            except (WorkerGoneError, WorkerFailedError):
                pass  # it is ending, or was closed
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
            except (WorkerGoneError, WorkerFailedError, OSError) as error:  # OSError: no room for its socket
                _log.error("index_worker_start_failed", attempt=attempt, error=str(error))
                if attempt == _START_ATTEMPTS:
                    raise
                time.sleep(0.2 * attempt)
        self.restarts += 1
        metrics.WORKER_RESTARTS.inc()
        seconds = time.monotonic() - started
        self.notice(None, f"the index worker died and was restarted within {seconds:.1f} s")
        self._switch_to(successor)

    def take_over(self) -> None:
        """Blue/green: fills a successor beside the serving worker, catches up, switches, ends the old one."""
        started = time.monotonic()
        with self._changing:
            figures = {key: IndexFigures() for key in self._figures}
        successor = IndexWorkerProcess()
        try:
            for key, own in figures.items():
                self._filler.fill(successor, key, own)
            with self._changing:
                for key, live in list(self._figures.items()):
                    own = figures.setdefault(key, IndexFigures())
                    if own.sequence == 0:
                        self._filler.fill(successor, key, own)
                    elif own.epoch < live.epoch and not (key.semantic and own.has_graph):
                        # Its mean was set meanwhile. A semantic graph keeps the old one until its next snapshot.
                        self._filler.fill(successor, key, own, from_snapshot=False)
                    else:
                        self._filler.catch_up(successor, key, own)
                    own.changed_since_snapshot = live.changed_since_snapshot
                    self._figures[key] = own
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

    # ---- for the maintenance

    def known(self) -> list[tuple[IndexKey, IndexFigures]]:
        """Indexes with what is known of them; the figures are live."""
        return list(self._figures.items())

    def oldest_snapshot(self, catalog_id: int) -> int:
        """The sequence of the oldest snapshot that an index of a catalogue would start from; 0: none has one."""
        found = [figures.snapshot for key, figures in self.known() if key.catalog_id == catalog_id]
        return min((info.sequence for info in found if info is not None), default=0)

    def wanted_epoch(self, key: IndexKey) -> int:
        """The epoch of the mean that the index should have."""
        return self._filler.wanted_epoch(key)

    def folder(self, key: IndexKey) -> Path:
        """Where the snapshots of an index are."""
        return self._filler.folder(key)

    def refill(self, key: IndexKey, figures: IndexFigures) -> None:
        """Fills a small index anew from the store, without its dead rows."""
        with self._changing:
            if self._figures.get(key) is figures:  # else it was dropped or filled anew meanwhile
                self._filler.fill(self._live_worker(), key, figures, from_snapshot=False)

    def notice(self, catalog_id: int | None, text: str) -> None:
        """Keeps a problem that was found and mended for GetCatalogStats; one that comes again is kept once."""
        _log.warning("notice", catalog_id=catalog_id, text=text)
        with contextlib.suppress(ValueError):
            self._notices.remove((catalog_id, text))
        self._notices.append((catalog_id, text))
