"""Notices in a child process that its parent is gone, however it went: also killed, when it could tell nobody.

Standard input is a pipe whose other end only the parent holds; the kernel closes it when the parent ends.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable


def when_parent_is_gone(act: Callable[[], None]) -> None:
    """Calls `act` once, in a thread of its own, when standard input ends."""
    threading.Thread(target=_watch, args=(act,), name="parent-watch", daemon=True).start()


def _watch(act: Callable[[], None]) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    act()
