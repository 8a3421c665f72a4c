"""Ends a child process when its parent is gone, however it went.

Standard input is a pipe that only the parent holds.
"""

from __future__ import annotations

import os
import sys
import threading


def exit_with_parent() -> None:
    """Watches standard input in a thread; its end is the end of this process."""
    threading.Thread(target=_watch, name="parent-watch", daemon=True).start()


def _watch() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)
