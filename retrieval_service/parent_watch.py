"""Ends a child process of the service when its parent is gone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from service_runtime.parent_watch import when_parent_is_gone


def exit_with_parent(leaving: Path | None = None) -> None:
    """Watches standard input, a pipe that only the parent holds, in a thread; its end is the end of this process.

    Args:
        leaving: A folder that a parent which was killed cannot take away any more.
    """

    def leave() -> None:
        if leaving is not None:
            shutil.rmtree(leaving, ignore_errors=True)
        os._exit(0)

    when_parent_is_gone(leave)
