"""A readers-writer lock that is fair: whoever comes first goes first.

A lock that prefers writers starves searches under a backlog of adds, and one that prefers readers starves the adds.
Here waiters stand in one queue and are granted in its order; readers next to each other go together.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Waiter:
    writes: bool
    granted: threading.Event = field(default_factory=threading.Event)


class FairReadWriteLock:
    """Many readers or one writer, first come, first served. Not reentrant."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[_Waiter] = deque()
        self._readers = 0
        self._writing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Shares the lock with other readers."""
        self._acquire(writes=False)
        try:
            yield
        finally:
            with self._mutex:
                self._readers -= 1
                self._grant()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Has the lock alone."""
        self._acquire(writes=True)
        try:
            yield
        finally:
            with self._mutex:
                self._writing = False
                self._grant()

    def _acquire(self, *, writes: bool) -> None:
        waiter = _Waiter(writes)
        with self._mutex:
            self._waiting.append(waiter)
            self._grant()
        waiter.granted.wait()

    def _grant(self) -> None:
        while self._waiting and not self._writing:
            head = self._waiting[0]
            if head.writes and self._readers:
                return
            self._waiting.popleft()
            self._writing = head.writes
            self._readers += not head.writes
            head.granted.set()
