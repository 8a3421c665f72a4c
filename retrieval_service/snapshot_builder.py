"""Makes a snapshot of one index from the store, in a process of its own.

    python -m retrieval_service.snapshot_builder --catalog-id N [--space NAME --version V] --folder DIR \\
        --rebuild-above 0.2

The first line of standard input is the URL of the store, which may hold a password.

Starts from the newest snapshot and replays what came after, through the same `SpaceIndex.apply` as live writes; from
nothing when there is none, when the space's mean was renewed since, or when too many rows are dead. Prints one line of
JSON: `sequence`, `epoch`, `rows`, `from_scratch`, `recall`, `seconds`. hnswlib holds the GIL for seconds while it
saves: here nobody waits.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: leave the other cores to those who serve

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from retrieval_service import snapshot
from retrieval_service.graph_recall import measured_recall
from retrieval_service.index_source import IndexSource, index_source
from retrieval_service.item_store import ItemStore
from retrieval_service.named_spaces import SEMANTIC, SEMANTIC_VERSION, IndexKey
from retrieval_service.parent_watch import exit_with_parent
from retrieval_service.snapshot import SnapshotDamagedError
from retrieval_service.snapshot_origin import snapshot_origin
from retrieval_service.space_index import SpaceIndex


def build(store: ItemStore, key: IndexKey, folder: Path, rebuild_above: float) -> dict[str, object]:
    """Writes a new snapshot and drops older ones; returns what it did.

    Args:
        store: The truth.
        key: Of the index.
        folder: Of its snapshots.
        rebuild_above: Share of dead rows, in (0,1], above which the old snapshot is not built upon.

    Raises:
        LookupError: The catalogue has no vectors, or the version is gone.
        OSError: The disk is full or fails.
    """
    started = time.monotonic()
    with store.reading() as connection:
        source = index_source(store, connection, key)
        if source is None:
            raise LookupError(f"index {key} has no vectors")
        origin, head = snapshot_origin(store, connection, key.catalog_id), store.sequence(connection, key.catalog_id)
        index = _base(folder, source, origin, head)
        if index is not None:
            _replay(source, index)
        from_scratch = (
            index is None
            or len(index) != source.count()
            or index.tombstones > rebuild_above * (len(index) + index.tombstones)
        )
        if index is None or from_scratch:
            index = SpaceIndex(source.geometry)
            _replay(source, index)
        if not index.has_graph:
            index.add_graph()
        index.sequence = head
    # Outside of the transaction: a long reader keeps the write-ahead log from shrinking.
    while index.graph_backlog:
        index.absorb(1024)
    recall = measured_recall(index)
    written = snapshot.write(index, folder, origin, recall)
    snapshot.prune(folder, keep=written.path)
    return {
        "sequence": written.sequence,
        "epoch": written.epoch,
        "rows": len(index),
        "from_scratch": from_scratch,
        "recall": recall,
        "seconds": round(time.monotonic() - started, 3),
    }


def _replay(source: IndexSource, index: SpaceIndex) -> None:
    for part in source.changes(index.sequence):
        index.apply(0, part.numbers, part.vectors, part.deleted)


def _base(folder: Path, source: IndexSource, origin: str, head: int) -> SpaceIndex | None:
    """The newest snapshot that can be built upon."""
    geometry = source.geometry
    try:
        info = snapshot.newest(folder)
        if info is None or info.epoch != geometry.epoch or info.origin != origin or info.sequence > head:
            return None
        return snapshot.load(info.path, dimensions=geometry.dimensions, normalize=geometry.normalize)
    except SnapshotDamagedError:
        return None  # the service notices and reports it when it loads; here a fresh one is the cure


def main(argv: Sequence[str] | None = None) -> None:
    """Builds one snapshot."""
    parser = argparse.ArgumentParser(description="Builds a snapshot of an index from the item store.")
    parser.add_argument("--catalog-id", required=True, type=int)
    parser.add_argument("--space", default=SEMANTIC)
    parser.add_argument("--version", type=int, default=SEMANTIC_VERSION)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--rebuild-above", required=True, type=float)
    arguments = parser.parse_args(argv)
    with open(0, "rb", buffering=0, closefd=False) as standard_input:  # unbuffered: the rest is the parent watch's
        database_url = standard_input.readline().decode().strip()
    exit_with_parent()
    os.nice(5)
    store = ItemStore(database_url)
    try:
        key = IndexKey(arguments.catalog_id, arguments.space, arguments.version)
        report = build(store, key, arguments.folder, arguments.rebuild_above)
    finally:
        store.close()
    json.dump(report, sys.stdout)
    print()


if __name__ == "__main__":
    main()
