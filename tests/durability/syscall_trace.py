"""What a service asks of the kernel, by strace: which files are written, brought to the disk and renamed, and when."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_CALLS = "write,pwrite64,pwritev,writev,fsync,fdatasync,rename,renameat,renameat2,link,linkat"
_LINE = re.compile(r"^(\d+\.\d+) (\w+)\((.*)\)\s+= (-?\d+).* <([\d.]+)>$")
_DESCRIPTOR = re.compile(r"^\d+<([^>]*)>")
_NAMES = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Call:
    """A call that succeeded, with its times in seconds since 1970 and the files it names."""

    begin: float
    end: float
    name: str
    files: tuple[str, ...]

    @property
    def syncs(self) -> bool:
        return self.name in ("fsync", "fdatasync")

    @property
    def writes(self) -> bool:
        return "write" in self.name

    @property
    def renames(self) -> bool:
        return self.name.startswith(("rename", "link"))


def tracing(folder: Path) -> list[str]:
    """The command to put before a service's; the process it starts is the service's own."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: fsyncs cannot be counted")
    folder.mkdir()
    flags = ["-D", "-f", "-ff", "-ttt", "-T", "-y", "-qq", "-s", "200", "-e", f"trace={_CALLS}", "-e", "signal=none"]
    return ["strace", *flags, "-o", str(folder / "thread")]


def calls(folder: Path) -> list[Call]:
    """What all threads called, in the order in which the calls ended."""
    return sorted((call for file in folder.iterdir() for call in _read(file)), key=lambda call: call.end)


def _read(file: Path) -> Iterator[Call]:
    for line in file.read_text(errors="replace").splitlines():
        found = _LINE.match(line)
        if found is None or int(found[4]) < 0:
            continue
        begin, duration = float(found[1]), float(found[5])
        descriptor = _DESCRIPTOR.match(found[3])
        renamed = found[2].startswith(("rename", "link"))
        files = tuple(_NAMES.findall(found[3])) if renamed else (descriptor[1],) if descriptor else ()
        yield Call(begin, begin + duration, found[2], files)
