"""Pages served in the last minutes, in memory: all that is ever kept of lists for somebody who is no stored user."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from ranking_service.served_lists.page_record import PageRecord

# Of Python's own beside the payload.
_ROW_BYTES = 1_000


class RecentPages:
    """Bounded in bytes and time. Safe for threads.

    Args:
        max_bytes: Of all pages.
        lifetime_s: Seconds that a page is kept.
    """

    def __init__(self, max_bytes: int, lifetime_s: float) -> None:
        self._max_bytes, self._lifetime_s = max_bytes, lifetime_s
        self._pages: OrderedDict[int, tuple[float, PageRecord]] = OrderedDict()
        self._of_list: dict[tuple[str, str], list[int]] = {}
        self._count = self._bytes = 0
        self._lock = threading.Lock()

    def put(self, record: PageRecord) -> None:
        """Keeps a page; the oldest make room."""
        with self._lock:
            self._count += 1
            self._pages[self._count] = (time.monotonic() + self._lifetime_s, record)
            self._of_list.setdefault((record.catalog, record.list_id), []).append(self._count)
            self._bytes += len(record.payload) + _ROW_BYTES
            while self._pages and (self._bytes > self._max_bytes or self._oldest()[0] < time.monotonic()):
                self._drop(next(iter(self._pages)))

    def pages(self, catalog: str, list_id: str) -> list[PageRecord]:
        """The pages of a list in the order they were served."""
        with self._lock:
            kept = [self._pages[number] for number in self._of_list.get((catalog, list_id), ())]
        return [record for until, record in kept if until >= time.monotonic()]

    def forget(self, catalog: str, user_id: str) -> None:
        """Drops the pages of a user."""
        self._forget(lambda record: record.catalog == catalog and record.user_id == user_id)

    def forget_keys(self, catalog: str, keys: Sequence[int]) -> None:
        """Drops the pages of users by their keys."""
        self._forget(lambda record: record.catalog == catalog and record.user_key in keys)

    def _forget(self, which: Callable[[PageRecord], bool]) -> None:
        with self._lock:
            for number, (_, record) in list(self._pages.items()):
                if which(record):
                    self._drop(number)

    def _oldest(self) -> tuple[float, PageRecord]:
        return next(iter(self._pages.values()))

    def _drop(self, number: int) -> None:
        _, record = self._pages.pop(number)
        self._bytes -= len(record.payload) + _ROW_BYTES
        key = (record.catalog, record.list_id)
        self._of_list[key].remove(number)
        if not self._of_list[key]:
            del self._of_list[key]
