"""Statistics on disk, so that a restart replays minutes of the log instead of years.

A file is one line of JSON (what it is, its checksum) and a NumPy archive. It is written beside the old one, flushed and
renamed into place, so a crash leaves the old or the new one. A file that is damaged, of another store, or made under
another event-type table is not used; the log has everything.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np

from ranking_service.statistics.catalog_statistics import CatalogStatistics
from ranking_service.statistics.pair_table import compacted
from ranking_service.users.event_types import markdown_table
from service_runtime.durable_files import sync

_FORMAT = 1


class SnapshotUnusable(Exception):
    """Why a snapshot cannot be used; the statistics are folded from the log instead."""


def save(path: Path, statistics: CatalogStatistics, epoch: str) -> int:
    """Writes a snapshot; returns the sequence it reflects. Others wait only while the state is copied."""
    with statistics.lock:
        item_ids, columns = statistics.pairs.copied()
        base, sequence = statistics.popularity.base, statistics.sequence
    item_ids, columns = compacted(item_ids, columns)
    archive = io.BytesIO()
    ids = np.frombuffer(json.dumps(item_ids, ensure_ascii=False).encode(), np.uint8)
    np.savez(archive, allow_pickle=False, item_ids=ids, base=np.array([base]), **columns)
    body = archive.getvalue()
    head = _identity(epoch, statistics.popularity_half_life_s) | {
        "sequence": sequence,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(json.dumps(head).encode() + b"\n")
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
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
        raise SnapshotUnusable("there is none") from None
    except ValueError:
        raise SnapshotUnusable("its head is damaged") from None
    if not isinstance(head, dict) or hashlib.sha256(body).hexdigest() != head.get("sha256"):
        raise SnapshotUnusable("its checksum does not match")
    for name, expected in _identity(epoch, popularity_half_life_s).items():
        if head.get(name) != expected:
            raise SnapshotUnusable(f"it was made with another {name}")
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        columns = {name: archive[name] for name in archive.files}
    statistics = CatalogStatistics(popularity_half_life_s)
    statistics.pairs.restore(json.loads(columns.pop("item_ids").tobytes()), columns)
    statistics.popularity.rebuild(float(columns["base"][0]))
    statistics.transitions.rebuild()
    statistics.sequence = int(head["sequence"])
    return statistics


def _identity(epoch: str, popularity_half_life_s: float) -> dict[str, object]:
    rules = hashlib.sha256(markdown_table().encode()).hexdigest()[:16]
    return {"format": _FORMAT, "epoch": epoch, "half_life_s": popularity_half_life_s, "event_types": rules}
