"""Sees to it that erased rows leave no bytes in the store's write-ahead log, now or as soon as that can be done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from service_runtime.telemetry import get_logger

_log = get_logger(__name__)
_TRIES = 10
_PAUSE_S = 0.1
_LATER_S = 10.0


class ErasedBytes:
    """Empties the log after an erasure; a reader or a full disk that is in the way puts it off, never off for good.

    Args:
        empty_log: Tells whether it could; waits a tenth of a second at most.
    """

    def __init__(self, empty_log: Callable[[], bool]) -> None:
        self._empty_log = empty_log
        self._lock = threading.Lock()
        self._later: threading.Timer | None = None
        self._closed = False

    def forget(self) -> None:
        """Blocks for two seconds or so at most; what cannot be done by then is tried again every ten seconds."""
        for _ in range(_TRIES):
            if self._empty_log():
                return
            time.sleep(_PAUSE_S)
        _log.warning("deleted_bytes_remain_in_the_write_ahead_log", again_in_s=_LATER_S)
        self._put_off()

    def close(self) -> None:
        """Ends the tries; the next start makes one of its own."""
        with self._lock:
            self._closed = True
            if self._later is not None:
                self._later.cancel()

    def _put_off(self) -> None:
        with self._lock:
            if self._closed or self._later is not None:
                return
            self._later = threading.Timer(_LATER_S, self._try_again)
            self._later.daemon = True
            self._later.start()

    def _try_again(self) -> None:
        with self._lock:
            self._later = None
        if self._empty_log():
            _log.info("deleted_bytes_are_gone_from_the_write_ahead_log")
        else:
            self._put_off()
