"""A disk that can be filled, made read-only and given room again: a small tmpfs, for tests that run as root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted file system of a few megabytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Leaves no byte free."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        os.write(descriptor, b"x" * size)
        finally:
            os.close(descriptor)

    def make_room(self) -> None:
        self._ballast.unlink()

    def read_only(self, yes: bool = True) -> None:
        """Only while nobody has a file of it open for writing."""
        subprocess.run(["mount", "-o", f"remount,{'ro' if yes else 'rw'}", str(self.path)], check=True)


@contextlib.contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mounts a tmpfs; skips the test where that is not allowed."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "zhiyin-test", str(path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk ({mounted.stderr.decode().strip()}); the file-size limit is tested")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@contextlib.contextmanager
def failing_disk(path: Path) -> Iterator[Callable[[], None]]:
    """Mounts a small ext4; yields what makes it read-only as the kernel does after an error, whoever writes to it."""
    image = path.with_suffix(".image")
    image.write_bytes(bytes(24 << 20))
    path.mkdir()
    for command in (
        ["mkfs.ext4", "-q", str(image)],
        ["mount", "-o", "loop,errors=remount-ro", str(image), str(path)],
    ):
        done = subprocess.run(command, capture_output=True, check=False) if shutil.which(command[0]) else None
        if done is None or done.returncode != 0:
            pytest.skip(f"cannot make a small disk with {command[0]}; refusals of the kernel are tested with strace")
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,abort", str(path)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
