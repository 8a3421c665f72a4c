"""Snapshots of an index: a folder that is whole or not there, with a manifest that a reader checks before it trusts.

hnswlib loads a damaged file without a word and takes a file of other dimensions, so the manifest holds the size and
SHA-256 of every file beside dimensions, metric, format, sequence and whose it is. A folder is written under a temporary
name, every file brought to the disk, and then renamed. The store is the truth: a snapshot that is damaged or missing
costs time, never data.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval_service.hnsw_index import HnswIndex
from retrieval_service.space_index import Geometry, SpaceIndex
from service_runtime.durable_files import make_folder, sync

FORMAT = 2
_MANIFEST, _GRAPH, _MATRIX, _NUMBERS, _MEAN = "manifest.json", "graph.hnsw", "matrix.npy", "numbers.npy", "mean.npy"


class SnapshotDamagedError(Exception):
    """The snapshot is not what its manifest says, or is not for this space."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """What a manifest says.

    Attributes:
        path: The folder.
        sequence: The last write inside.
        epoch: Of the space's mean.
        tombstones: Dead rows inside.
        created_at: Seconds since 1970.
        origin: What the writer said of the store; empty: nothing.
        recall: Of the graph when it was written, in [0, 1]; None: not measured.
    """

    path: Path
    sequence: int
    epoch: int
    tombstones: int
    created_at: float
    origin: str = ""
    recall: float | None = None


def newest_path(folder: Path) -> Path | None:
    """The folder of the newest snapshot of a catalogue, whole or not."""
    return max((p for p in folder.glob("snapshot-*") if p.is_dir()), default=None)


def read_info(path: Path) -> SnapshotInfo:
    """What the manifest of a snapshot says; `load` checks the rest.

    Raises:
        SnapshotDamagedError: It cannot be read, or is of another catalogue or release.
    """
    return _info(path, _manifest(path))


def newest(folder: Path) -> SnapshotInfo | None:
    """The newest snapshot of a catalogue, by its manifest only.

    Raises:
        SnapshotDamagedError: The newest folder has no readable manifest.
    """
    path = newest_path(folder)
    return None if path is None else read_info(path)


def write(index: SpaceIndex, folder: Path, origin: str = "", recall: float | None = None) -> SnapshotInfo:
    """Writes a snapshot of an index that nobody changes meanwhile. For the snapshot process.

    Args:
        index: The index; its graph must have no backlog.
        folder: Of the catalogue's snapshots, named by its number; made when missing.
        origin: Tells the catalogue from one of the same number in another store.
        recall: Of the graph, where it was measured.

    Raises:
        OSError: The disk is full or fails; nothing is left behind that a reader would take.
    """
    sequence, numbers, matrix, graph = index.state()
    final = folder / f"snapshot-{sequence:016d}-{index.geometry.epoch:06d}-{time.time_ns()}"
    temporary = folder / f".writing-{os.getpid()}"
    make_folder(folder)
    for left_behind in folder.glob(".writing-*"):  # by a writer that was killed; on a full disk every byte counts
        shutil.rmtree(left_behind, ignore_errors=True)
    temporary.mkdir()
    try:
        _save_array(temporary / _NUMBERS, numbers)
        _save_array(temporary / _MATRIX, matrix)
        if index.geometry.mean is not None:
            _save_array(temporary / _MEAN, index.geometry.mean)
        if graph is not None:
            graph.save(temporary / _GRAPH)
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "catalog": folder.name,
            "origin": origin,
            "dimensions": index.geometry.dimensions,
            "metric": "cosine" if index.geometry.normalize else "inner_product",
            "epoch": index.geometry.epoch,
            "sequence": sequence,
            "rows": len(numbers),
            "tombstones": index.tombstones,
            "removed_from_graph": graph.removed if graph is not None else 0,
            "created_at": time.time(),
            "recall": recall,
            "files": {p.name: _fingerprint(p) for p in sorted(temporary.iterdir())},
        }
        manifest["checksum"] = _checksum(manifest)
        with (temporary / _MANIFEST).open("w") as file:
            json.dump(manifest, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        sync(temporary)
        temporary.rename(final)
        sync(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return _info(final, manifest)


def load(path: Path, *, dimensions: int, normalize: bool) -> SpaceIndex:
    """Checks a snapshot and reads it.

    Raises:
        SnapshotDamagedError: A file is missing, has other bytes than the manifest says, or is for other vectors.
    """
    manifest = _manifest(path)
    metric = "cosine" if normalize else "inner_product"
    if manifest["dimensions"] != dimensions or manifest["metric"] != metric:
        raise SnapshotDamagedError(
            f"it holds {manifest['dimensions']} dimensions by {manifest['metric']}, "
            f"the space has {dimensions} by {metric}"
        )
    if wrong := wrong_files(path):
        raise SnapshotDamagedError(wrong)
    for name, expected in manifest["files"].items():
        if _fingerprint(path / name)["sha256"] != expected["sha256"]:
            raise SnapshotDamagedError(f"{name} has another checksum than when it was written")
    files = manifest["files"]
    # Copied out of the page cache into memory of its own, which can grow in place.
    numbers, matrix = np.load(path / _NUMBERS), np.array(np.load(path / _MATRIX, mmap_mode="r"))
    mean = np.load(path / _MEAN) if _MEAN in files else None
    if matrix.shape != (manifest["rows"], dimensions) or numbers.shape != (manifest["rows"],):
        raise SnapshotDamagedError(f"the arrays have shapes {matrix.shape} and {numbers.shape}")
    graph = None
    if _GRAPH in files:
        graph = HnswIndex.load(path / _GRAPH, dimensions, manifest["removed_from_graph"])
    geometry = Geometry(dimensions, mean, manifest["epoch"], normalize)
    return SpaceIndex.restore(geometry, manifest["sequence"], numbers, matrix, graph)


def wrong_files(path: Path) -> str:
    """What is wrong with the sizes of a snapshot's files; empty: nothing. `load` also compares their content.

    Raises:
        SnapshotDamagedError: The manifest cannot be read.
    """
    for name, expected in _manifest(path)["files"].items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["size"]:
            return f"{name} has {file.stat().st_size} bytes instead of {expected['size']}"
    return ""


def mean_of(path: Path) -> NDArray[np.float32] | None:
    """The mean that a snapshot's vectors are without; None: there is none. Unchecked."""
    file = path / _MEAN
    return np.load(file) if file.exists() else None


def prune(folder: Path, keep: Path | None) -> None:
    """Drops what is older than the snapshot to keep, and what a killed writer left."""
    for path in folder.glob("*"):
        if path.is_dir() and path != keep:
            shutil.rmtree(path, ignore_errors=True)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / _MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise SnapshotDamagedError(f"its format is {manifest['format']}, this release reads {FORMAT}")
        if manifest.pop("checksum", None) != _checksum(manifest):
            raise SnapshotDamagedError("the manifest has another checksum than when it was written")
        if manifest["catalog"] != path.parent.name:
            raise SnapshotDamagedError(f"it is of catalogue number {manifest['catalog']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SnapshotDamagedError(f"the manifest cannot be read ({type(error).__name__})") from None
    return manifest


def _checksum(manifest: dict[str, Any]) -> str:
    """Of the manifest itself: a wrong sequence number in it would make a replay skip writes."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _info(path: Path, manifest: dict[str, Any]) -> SnapshotInfo:
    return SnapshotInfo(
        path,
        manifest["sequence"],
        manifest["epoch"],
        manifest["tombstones"],
        manifest["created_at"],
        manifest["origin"],
        manifest.get("recall"),  # not in those of the first release
    )


def _save_array(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
