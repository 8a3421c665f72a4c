"""One process at a time over a data folder: two writers, each with its own index in memory, would tell two truths.

The kernel drops the lock with the process, however that ends, so none is left behind by a kill. What does stay is a
mark: a folder whose content is being exchanged is nobody's until that is finished.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from service_runtime.durable_files import make_folder, sync
from service_runtime.errors import FailedPrecondition

_POLL_S = 0.05
PREDECESSOR_S = 30.0
"""How long a service waits for the lock: a predecessor that is being stopped may still flush."""
_FILE = ".lock"


class FolderLock:
    """The right to write to a folder.

    Args:
        folder: Made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._descriptor: int | None = None

    def take(self, wait_s: float = 0.0, *, finish: bool = False) -> None:
        """Takes the lock; blocks.

        Args:
            wait_s: How long to wait for a predecessor that is still flushing, in seconds.
            finish: Whether to take a marked folder as well, to finish what left the mark.

        Raises:
            FailedPrecondition: Another process has it, or the folder is marked.
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
        if not finish and (unfinished := unfinished_work(self._path.parent)):
            self.release()
            raise FailedPrecondition(f"{self._path.parent}: {unfinished}", reason="FOLDER_UNFINISHED")

    def mark(self, unfinished: str) -> None:
        """Says, for whoever comes after a kill, why the folder must not be used and what to do."""
        assert self._descriptor is not None, "only who has the lock may mark"
        self.unmark()
        os.pwrite(self._descriptor, unfinished.encode(), 0)
        os.fsync(self._descriptor)
        sync(self._path.parent)

    def unmark(self) -> None:
        """The folder may be used again."""
        assert self._descriptor is not None, "only who has the lock may unmark"
        os.ftruncate(self._descriptor, 0)
        os.fsync(self._descriptor)

    def release(self) -> None:
        """Gives the lock back; nothing happens where it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def unfinished_work(folder: Path) -> str:
    """Why a folder must not be used; empty: it may be."""
    file = folder / _FILE
    return file.read_text() if file.exists() else ""
