"""Makes a snapshot of one catalogue's index from the store, in a process of its own.

    python -m retrieval_service.snapshot_builder --catalog-id N --folder DIR --rebuild-above 0.2

The first line of standard input is the URL of the store, which may hold a password.

Starts from the newest snapshot and replays what came after, through the same `SpaceIndex.apply` as live writes; from
nothing when there is none, when the space's mean was renewed since, or when too many rows are dead. Prints one line of
JSON: `sequence`, `epoch`, `rows`, `from_scratch`, `seconds`. hnswlib holds the GIL for seconds while it saves: here
nobody waits.
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
from retrieval_service.item_store import ItemStore
from retrieval_service.parent_watch import exit_with_parent
from retrieval_service.snapshot import SnapshotDamagedError
from retrieval_service.snapshot_origin import snapshot_origin
from retrieval_service.space_index import Geometry, SpaceIndex
from retrieval_service.vector_rows import Connection, SpaceRow


def build(store: ItemStore, catalog_id: int, folder: Path, rebuild_above: float) -> dict[str, object]:
    """Writes a new snapshot and drops older ones; returns what it did.

    Args:
        store: The truth.
        catalog_id: The catalogue.
        folder: Of its snapshots.
        rebuild_above: Share of dead rows, in (0,1], above which the old snapshot is not built upon.

    Raises:
        LookupError: The catalogue has no vectors.
        OSError: The disk is full or fails.
    """
    started = time.monotonic()
    with store.reading() as connection:
        space = store.space(connection, catalog_id)
        if space is None:
            raise LookupError(f"catalogue {catalog_id} has no vectors")
        origin = snapshot_origin(store, connection, catalog_id)
        index = _base(folder, space, origin, store.sequence(connection, catalog_id))
        if index is not None:
            _replay(store, connection, catalog_id, index)
        from_scratch = index is None or index.tombstones > rebuild_above * (len(index) + index.tombstones)
        if index is None or from_scratch:
            geometry = Geometry(space.dimensions, space.centering.mean, space.centering.epoch)
            index = SpaceIndex(geometry)
            _replay(store, connection, catalog_id, index)
        if not index.has_graph:
            index.add_graph()
        index.sequence = store.sequence(connection, catalog_id)
    # Outside of the transaction: a long reader keeps the write-ahead log from shrinking.
    while index.graph_backlog:
        index.absorb(1024)
    written = snapshot.write(index, folder, origin)
    snapshot.prune(folder, keep=written.path)
    return {
        "sequence": written.sequence,
        "epoch": written.epoch,
        "rows": len(index),
        "from_scratch": from_scratch,
        "seconds": round(time.monotonic() - started, 3),
    }


def _replay(store: ItemStore, connection: Connection, catalog_id: int, index: SpaceIndex) -> None:
    dimensions = index.geometry.dimensions
    for part in store.vector_changes(connection, catalog_id, index.sequence, dimensions):
        index.apply(0, part.numbers, part.vectors, part.deleted)


def _base(folder: Path, space: SpaceRow, origin: str, head: int) -> SpaceIndex | None:
    """The newest snapshot that can be built upon."""
    try:
        info = snapshot.newest(folder)
        if info is None or info.epoch != space.centering.epoch or info.origin != origin or info.sequence > head:
            return None
        return snapshot.load(info.path, dimensions=space.dimensions, normalize=True)
    except SnapshotDamagedError:
        return None  # the service notices and reports it when it loads; here a fresh one is the cure


def main(argv: Sequence[str] | None = None) -> None:
    """Builds one snapshot."""
    parser = argparse.ArgumentParser(description="Builds a snapshot of an index from the item store.")
    parser.add_argument("--catalog-id", required=True, type=int)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--rebuild-above", required=True, type=float)
    arguments = parser.parse_args(argv)
    with open(0, "rb", buffering=0, closefd=False) as standard_input:  # unbuffered: the rest is the parent watch's
        database_url = standard_input.readline().decode().strip()
    exit_with_parent()
    os.nice(5)
    store = ItemStore(database_url)
    try:
        report = build(store, arguments.catalog_id, arguments.folder, arguments.rebuild_above)
    finally:
        store.close()
    json.dump(report, sys.stdout)
    print()


if __name__ == "__main__":
    main()
