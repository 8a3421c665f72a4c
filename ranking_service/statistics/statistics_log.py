"""Folds the event log of every catalogue into its statistics: at start, with every write, and behind other replicas.

    start:  snapshot -> the log after it        \
    write:  the entries of the committed change  }-> CatalogStatistics.apply, one function for all
    behind: the log after what was applied      /
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ranking_service.statistics import statistics_snapshot
from ranking_service.statistics.catalog_statistics import CatalogStatistics
from ranking_service.statistics.statistics_snapshot import SnapshotUnusable
from ranking_service.users import user_metrics
from ranking_service.users.event import Erasure
from ranking_service.users.store.store import UserStore
from ranking_service.users.user import Change
from service_runtime.telemetry import get_logger

_log = get_logger(__name__)
# After a snapshot could not be written the next is tried so much later, then twice as much, and so on.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 60.0


@dataclass(slots=True)
class _Folded:
    """One catalogue and its snapshot.

    Attributes:
        key: The store's number of the catalogue.
        statistics: The state in memory.
        saved_sequence: Sequence of the last snapshot asked for.
        on_disk: Sequence of the last one written.
        pause_s: Wait after the last one, which could not be written; 0 when it could.
        retry: The timer of the next try.
    """

    key: int
    statistics: CatalogStatistics
    saved_sequence: int = 0
    on_disk: int = 0
    pause_s: float = 0.0
    retry: threading.Timer | None = None
    applying: threading.Lock = field(default_factory=threading.Lock)
    saving: threading.Lock = field(default_factory=threading.Lock)


class EventStatistics:
    """The `Statistics` of all catalogues.

    Args:
        store: Where the log is.
        folder: Where snapshots are kept.
        half_life_s: Of popularity, in seconds.
        snapshot_every: Log entries after which the statistics are saved.
    """

    def __init__(self, store: UserStore, folder: Path, half_life_s: float, snapshot_every: int) -> None:
        self._store = store
        self._folder = folder
        self._half_life_s = half_life_s
        self._snapshot_every = snapshot_every
        self._catalogs: dict[str, _Folded] = {}
        self._savers = ThreadPoolExecutor(1, "statistics-snapshots")
        self._closing = False

    def popular(self, catalog: str, now: float, limit: int) -> list[tuple[str, float]]:
        """Item ids by time-decayed popularity at `now` (Unix seconds), best first."""
        folded = self._catalogs.get(catalog)
        return folded.statistics.popular(now, limit) if folded is not None else []

    def transitions(self, catalog: str, weighted_items: Mapping[str, float], limit: int) -> list[tuple[str, float]]:
        """Items that followed the given ones, best first, without the given ones."""
        folded = self._catalogs.get(catalog)
        return folded.statistics.following(weighted_items, limit) if folded is not None else []

    def liked_by_neighbours(
        self, catalog: str, weighted_items: Mapping[str, float], user_key: int, limit: int
    ) -> list[tuple[str, float]]:
        """What the users liked who liked the given items too, best first, without the given ones."""
        folded = self._catalogs.get(catalog)
        return folded.statistics.liked_by_neighbours(weighted_items, user_key, limit) if folded is not None else []

    def users_of(self, catalog: str, item_ids: Sequence[str]) -> list[int]:
        """How many users acted on each item."""
        folded = self._catalogs.get(catalog)
        return folded.statistics.users_of(item_ids) if folded is not None else [0] * len(item_ids)

    def event_sequence(self, catalog: str) -> int:
        """Sequence number up to which the log is folded in."""
        folded = self._catalogs.get(catalog)
        return folded.statistics.sequence if folded is not None else 0

    def load(self, catalog: str, key: int) -> None:
        """Makes a catalogue's statistics current: the snapshot, then the log after it."""
        started = time.monotonic()
        try:
            statistics = statistics_snapshot.load(self._path(key), self._store.epoch, self._half_life_s)
            if statistics.sequence > self._store.sequence(key):
                raise SnapshotUnusable("it is newer than the store, which was put back to an older state", "foreign")
        except SnapshotUnusable as why:
            statistics = CatalogStatistics(self._half_life_s)
            log = _log.info if why.kind == "missing" else _log.warning
            log("statistics_folded_from_the_whole_log", catalog=catalog, snapshot=str(why), kind=why.kind)
            user_metrics.STATISTICS_REFOLDS.labels(why.kind).inc()
        folded = _Folded(key, statistics, saved_sequence=statistics.sequence, on_disk=statistics.sequence)
        self._catalogs[catalog] = folded
        if self.catch_up(catalog):
            self.save(catalog)  # the snapshot still counted somebody who was erased
        _log.info(
            "statistics_loaded",
            catalog=catalog,
            sequence=statistics.sequence,
            replayed=statistics.sequence - folded.saved_sequence,
            seconds=round(time.monotonic() - started, 3),
        )

    def add(self, catalog: str, key: int) -> None:
        """Begins the statistics of a catalogue that was just made known."""
        self._catalogs.setdefault(catalog, _Folded(key, CatalogStatistics(self._half_life_s)))

    def apply(self, change: Change) -> None:
        """Folds a committed write in. Runs in the writer's thread."""
        folded = self._catalogs[change.catalog]
        with folded.applying:
            if folded.statistics.sequence == change.before:
                folded.statistics.apply(change.entries, change.after)
            elif folded.statistics.sequence < change.after:
                self._read_on(folded, change.after)  # other replicas wrote in between
        if folded.statistics.sequence - folded.saved_sequence >= self._snapshot_every:
            folded.saved_sequence = folded.statistics.sequence
            self._savers.submit(self.save, change.catalog)

    def catch_up(self, catalog: str, until: int | None = None) -> bool:
        """Folds in what the log has beyond what was applied; tells whether an erasure was among it.

        Args:
            until: Sequence to stop at; None: the catalogue's.
        """
        folded = self._catalogs[catalog]
        with folded.applying:
            return self._read_on(folded, until)

    def save(self, catalog: str) -> None:
        """Writes a catalogue's snapshot. A failure is logged and tried again later; the log has everything.

        Of several callers at once, those whose state another has just written come back at once.
        """
        folded = self._catalogs[catalog]
        wanted = folded.statistics.sequence
        with folded.saving, user_metrics.STATISTICS_SNAPSHOT_SECONDS.time():
            if 0 < wanted <= folded.on_disk:
                return
            try:
                path = self._path(folded.key)
                folded.on_disk = statistics_snapshot.save(path, folded.statistics, self._store.epoch)
            except OSError as error:
                self._try_again(catalog, folded, error)
                return
            if folded.pause_s:
                _log.info("statistics_snapshot_written_again", catalog=catalog, sequence=folded.on_disk)
                folded.pause_s = 0.0
        folded.saved_sequence = folded.on_disk

    def close(self) -> None:
        """Saves what changed since the last snapshot."""
        self._closing = True
        self._savers.shutdown()
        for catalog, folded in self._catalogs.items():
            if folded.retry is not None:
                folded.retry.cancel()
            if folded.statistics.sequence != folded.on_disk:
                self.save(catalog)

    def _try_again(self, catalog: str, folded: _Folded, error: OSError) -> None:
        user_metrics.STATISTICS_SNAPSHOT_FAILURES.inc()
        folded.pause_s = min(max(2.0 * folded.pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        again = None if self._closing else folded.pause_s
        _log.warning("statistics_snapshot_failed", catalog=catalog, error=str(error), again_in_s=again)
        if again is None or (folded.retry is not None and folded.retry.is_alive()):
            return

        def save_later() -> None:
            folded.retry = None
            with contextlib.suppress(RuntimeError):  # closing
                self._savers.submit(self.save, catalog)

        folded.retry = threading.Timer(folded.pause_s, save_later)
        folded.retry.daemon = True
        folded.retry.start()

    def _read_on(self, folded: _Folded, until: int | None) -> bool:
        erased = False
        if until is not None and until <= folded.statistics.sequence:
            return False
        for page, sequence in self._store.read_log(folded.key, folded.statistics.sequence, until):
            folded.statistics.apply(page, sequence)
            erased = erased or any(isinstance(entry, Erasure) for entry in page)
        return erased

    def _path(self, key: int) -> Path:
        return self._folder / f"{key}.statistics"
