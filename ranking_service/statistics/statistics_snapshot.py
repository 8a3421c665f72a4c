"""Statistics on disk, so that a restart replays minutes of the log instead of years.

A file is one line of JSON (what it is, a checksum over both parts) and a NumPy archive. It is written beside the old
one, flushed and renamed into place, so a crash leaves the old or the new one. A file that is damaged, of another store,
catalogue or release, or made under another event-type table is not used; the log has everything.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ranking_service.statistics.catalog_statistics import CatalogStatistics
from ranking_service.statistics.pair_table import compacted
from ranking_service.users.event_types import markdown_table
from service_runtime.durable_files import make_folder, sync

_FORMAT = 2


class SnapshotUnusable(Exception):
    """Why a snapshot cannot be used; the statistics are folded from the log instead.

    Attributes:
        kind: `missing`; `damaged`: other bytes than were written; `foreign`: whole, and of something else.
    """

    def __init__(self, message: str, kind: Literal["missing", "damaged", "foreign"] = "damaged") -> None:
        self.kind = kind
        super().__init__(message)


def save(path: Path, statistics: CatalogStatistics, epoch: str) -> int:
    """Writes a snapshot; returns the sequence it reflects. Others wait only while the state is copied.

    Raises:
        OSError: The disk is full or fails; the old snapshot, if any, is still there.
    """
    with statistics.lock:
        item_ids, columns = statistics.pairs.copied()
        base, sequence = statistics.popularity.base, statistics.sequence
    item_ids, columns = compacted(item_ids, columns)
    archive = io.BytesIO()
    ids = np.frombuffer(json.dumps(item_ids, ensure_ascii=False).encode(), np.uint8)
    np.savez(archive, allow_pickle=False, item_ids=ids, base=np.array([base]), **columns)
    body = archive.getvalue()
    head: dict[str, Any] = _identity(path, epoch, statistics.popularity_half_life_s) | {"sequence": sequence}
    head["sha256"] = _checksum(head, body)
    make_folder(path.parent)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # on a full disk every byte counts
        raise
    sync(path.parent)
    return sequence


def load(path: Path, epoch: str, popularity_half_life_s: float) -> CatalogStatistics:
    """Reads a snapshot.

    Raises:
        SnapshotUnusable: There is none, or it cannot be used; the message says why.
    """
    try:
        head_line, _, body = path.read_bytes().partition(b"\n")
        head = json.loads(head_line)
    except FileNotFoundError:
        raise SnapshotUnusable("there is none", "missing") from None
    except OSError as error:
        raise SnapshotUnusable(f"it cannot be read ({error.strerror})") from None
    except ValueError:
        raise SnapshotUnusable("its head is damaged") from None
    if not isinstance(head, dict):
        raise SnapshotUnusable("its head is damaged")
    if head.get("format") != _FORMAT:
        raise SnapshotUnusable(f"its format is {head.get('format')}, this release reads {_FORMAT}", "foreign")
    if head.pop("sha256", None) != _checksum(head, body):
        raise SnapshotUnusable("its checksum does not match")
    for name, expected in _identity(path, epoch, popularity_half_life_s).items():
        if head.get(name) != expected:
            raise SnapshotUnusable(f"it was made with another {name}", "foreign")
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        columns = {name: archive[name] for name in archive.files}
    statistics = CatalogStatistics(popularity_half_life_s)
    statistics.pairs.restore(json.loads(columns.pop("item_ids").tobytes()), columns)
    statistics.popularity.rebuild(float(columns["base"][0]))
    statistics.transitions.rebuild()
    statistics.sequence = int(head["sequence"])
    return statistics


def _checksum(head: dict[str, Any], body: bytes) -> str:
    """Of the head as well: a wrong sequence number in it would make a replay skip events."""
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    digest.update(body)
    return digest.hexdigest()


def _identity(path: Path, epoch: str, popularity_half_life_s: float) -> dict[str, object]:
    rules = hashlib.sha256(markdown_table().encode()).hexdigest()[:16]
    return {
        "format": _FORMAT,
        "epoch": epoch,
        "catalog": path.stem,
        "half_life_s": popularity_half_life_s,
        "event_types": rules,
    }
