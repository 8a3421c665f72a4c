"""One process at a time over a data folder: two writers, each with its own index in memory, would tell two truths.

The kernel drops the lock with the process, however that ends, so none is left behind by a kill.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from service_runtime.durable_files import make_folder
from service_runtime.errors import FailedPrecondition

_POLL_S = 0.05
_FILE = ".lock"


class FolderLock:
    """The right to write to a folder.

    Args:
        folder: Made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._descriptor: int | None = None

    def take(self, wait_s: float = 0.0) -> None:
        """Takes the lock; blocks.

        Args:
            wait_s: How long to wait for a predecessor that is still flushing, in seconds.

        Raises:
            FailedPrecondition: Another process has it.
        """
        make_folder(self._path.parent)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    raise FailedPrecondition(
                        f"another process works on {self._path.parent}; stop it first, or use another folder",
                        reason="FOLDER_IN_USE",
                    ) from None
                time.sleep(_POLL_S)
        self._descriptor = descriptor

    def release(self) -> None:
        """Gives the lock back; nothing happens where it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
