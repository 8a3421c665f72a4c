"""Ends a child process when its parent is gone, however it went.

Standard input is a pipe that only the parent holds.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path


def exit_with_parent(leaving: Path | None = None) -> None:
    """Watches standard input in a thread; its end is the end of this process.

    Args:
        leaving: A folder that a parent which was killed cannot take away any more.
    """
    threading.Thread(target=_watch, args=(leaving,), name="parent-watch", daemon=True).start()


def _watch(leaving: Path | None) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    if leaving is not None:
        shutil.rmtree(leaving, ignore_errors=True)
    os._exit(0)
