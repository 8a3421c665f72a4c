"""Proves that an index agrees with the item store: a snapshot on the disk, and the index of a running service."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from google.protobuf.field_mask_pb2 import FieldMask
from numpy.typing import NDArray

from retrieval_service import snapshot
from retrieval_service import store_schema as schema
from retrieval_service.centering import transform
from retrieval_service.conversions import matrix_from_proto
from retrieval_service.index_source import index_source
from retrieval_service.item_store import CatalogRow, ItemStore
from retrieval_service.named_spaces import IndexKey
from retrieval_service.snapshot import SnapshotDamagedError
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as pb_grpc
from zhiyin_offline.upkeep.findings import Report
from zhiyin_offline.upkeep.space_check import vectors_of

_SNAPSHOT_ATTEMPTS = 5
_LIVE_PAGE = 200
_LIVE_ATTEMPTS = 10
_LIVE_PAUSE_S = 2.0
_DEADLINE_S = 30.0
# Of a component. The index computes in float32; a service answers in float16.
_SNAPSHOT_TOLERANCE = 1e-5
_LIVE_TOLERANCE = 2e-3


def check_snapshot(
    store: ItemStore, row: CatalogRow, key: IndexKey, folder: Path, report: Report, *, repair: bool
) -> None:
    """The newest snapshot of an index: whole, and with the store's vectors for everything not written since.

    A service that runs may put a newer one in its place meanwhile, and with it drop what it needed: that one is looked
    at then.

    Args:
        folder: Of the index's snapshots.
        repair: Removes a snapshot that is not; the service builds its index from the store then.
    """
    where = f"index snapshot, catalogue {row.name}{_named(key)}"
    for _ in range(_SNAPSHOT_ATTEMPTS):
        path = snapshot.newest_path(folder)
        try:
            proved = _compare_snapshot(store, key, folder)
        except SnapshotDamagedError as error:
            fault = str(error)
        else:
            if proved:
                report.proved.append(f"{where}: {proved}")
            return
        if snapshot.newest_path(folder) == path:
            break
    else:
        report.not_compared.append(f"{where}: the service renews it faster than it can be read")
        return
    if repair:
        shutil.rmtree(folder)
    report.found(where, fault, derived=True, repaired=repair)


def _compare_snapshot(store: ItemStore, key: IndexKey, folder: Path) -> str:
    """What is proved by the newest snapshot; empty: the index needs none.

    Raises:
        SnapshotDamagedError: It is not whole, or not what the store says.
    """
    with store.reading() as connection:
        source = index_source(store, connection, key)
        geometry = None if source is None else source.geometry
    if geometry is None:
        return ""
    info = snapshot.newest(folder)
    if info is None:
        return "there is none; the index is built from the store at start"
    try:
        index = snapshot.load(info.path, dimensions=geometry.dimensions, normalize=geometry.normalize)
    except OSError as error:  # dropped while it was read
        raise SnapshotDamagedError(f"it cannot be read ({type(error).__name__})") from None
    sequence, numbers, matrix, _ = index.state()
    row_of = {int(number): i for i, number in enumerate(numbers) if number >= 0}
    expected, wrong = 0, 0
    # Only now: a state from before would lack what a newer snapshot has.
    with store.reading() as connection:
        source = index_source(store, connection, key)
        # Written or deleted after the snapshot, and replayed over it.
        changed: set[int] = set(connection.execute(_changed_after(key, sequence)).scalars())
        for part in source.changes(0) if source is not None else ():
            since = [int(number) not in changed for number in part.numbers]
            rows = np.asarray([row_of.pop(int(number), -1) for number in part.numbers[since]], dtype=np.int64)
            expected += len(rows)
            there = rows >= 0
            wanted = transform(part.vectors[since], index.geometry.mean, normalize=index.geometry.normalize)
            far = np.abs(matrix[rows[there]] - wanted[there]).max(axis=1, initial=0.0) > _SNAPSHOT_TOLERANCE
            wrong += int((~there).sum() + far.sum())
    extra = len(row_of.keys() - changed)
    if wrong or extra:
        raise SnapshotDamagedError(f"{wrong} vectors are missing or others, {extra} are of no item")
    return f"{expected} vectors as in the store at write {sequence}"


def check_live(
    stub: pb_grpc.RetrievalServiceStub,
    store: ItemStore,
    row: CatalogRow,
    key: IndexKey,
    folder: Path,
    report: Report,
) -> None:
    """The index that a running service searches: every item's vector is the store's, and there are no others.

    Items that are written meanwhile are left out of the comparison. A graph follows a renewed mean of its space moments
    later, with a snapshot from `folder`: its mean is as good, and what differs is looked at again before that is said.

    Raises:
        grpc.RpcError: The service does not answer.
    """
    where = f"index in service, catalogue {row.name}{_named(key)}"
    for attempt in range(_LIVE_ATTEMPTS):
        time.sleep(_LIVE_PAUSE_S if attempt else 0.0)
        seen = _compare_live(stub, store, row, key, folder)
        if not seen.wrong:
            break
    stats = stub.GetCatalogStats(pb.GetCatalogStatsRequest(catalog=row.name), timeout=_DEADLINE_S)
    if key.semantic and stats.sequence == seen.sequence and stats.indexed_count != stats.item_count:
        report.found(where, f"it has {stats.indexed_count} vectors for {stats.item_count} items", derived=True)
    if seen.wrong:
        what = f"{seen.wrong} of {seen.compared} items have another vector than in the store; restart the service"
        report.found(where, what, derived=True)
        return
    written = f", {seen.total - seen.compared} written meanwhile" if seen.compared < seen.total else ""
    report.proved.append(f"{where}: {seen.compared} vectors as in the store{written}")


@dataclass
class _Seen:
    """Items of the store at a write, those of them that could be compared, and those that differ."""

    sequence: int
    total: int = 0
    compared: int = 0
    wrong: int = 0


def _compare_live(
    stub: pb_grpc.RetrievalServiceStub, store: ItemStore, row: CatalogRow, key: IndexKey, folder: Path
) -> _Seen:
    with store.reading() as connection:
        source = index_source(store, connection, key)
        seen = _Seen(store.sequence(connection, row.catalog_id))
        if source is None:
            return seen
        geometry = source.geometry
        means = [geometry.mean, *(_mean_of_snapshot(folder) if key.semantic else [])]
        after = ""
        while page := store.items_after(connection, row.catalog_id, after, _LIVE_PAGE):
            after = page[-1].item_id
            seen.total += len(page)
            reply = stub.Search(
                pb.SearchRequest(
                    catalog=row.name,
                    hydrate_item_ids=[stored.item_id for stored in page],
                    vectors_space=key.space,
                    vectors_space_version=key.version,
                    read_mask=FieldMask(paths=["id", "sequence"]),
                    include_unavailable=True,
                    min_sequence=seen.sequence,
                ),
                timeout=_DEADLINE_S,
            )
            given = matrix_from_proto(reply.item_vectors).astype(np.float32)
            shown = {item.id: (item.sequence, given[i]) for i, item in enumerate(reply.items)}
            raw = vectors_of(store, connection, key, [stored.number for stored in page])
            wrong = [0] * len(means)
            for stored in page:
                sequence, vector = shown.get(stored.item_id, (0, None))
                since = sequence != stored.sequence if vector is not None else reply.sequence > seen.sequence
                if since:
                    continue
                seen.compared += 1
                for i, mean in enumerate(means):
                    own = raw.get(stored.number)
                    wanted = np.zeros(geometry.dimensions, np.float32)  # as the service shows that there is none
                    if own is not None:
                        wanted = transform(own[None], mean, normalize=geometry.normalize)[0]
                    room = _LIVE_TOLERANCE * max(1.0, float(np.abs(wanted).max()))
                    wrong[i] += vector is None or float(np.abs(vector - wanted).max()) > room
            seen.wrong += min(wrong)
    return seen


def _mean_of_snapshot(folder: Path) -> list[NDArray[np.float32] | None]:
    try:
        info = snapshot.newest(folder)
        return [] if info is None else [snapshot.mean_of(info.path)]
    except (SnapshotDamagedError, OSError):
        return []


def _named(key: IndexKey) -> str:
    return "" if key.semantic else f", space {key.space} version {key.version}"


def _changed_after(key: IndexKey, sequence: int) -> sa.CompoundSelect[Any]:
    put = schema.space_vectors.c
    return sa.union(
        *(
            sa.select(table.c.number).where(table.c.catalog_id == key.catalog_id, table.c.sequence > sequence)
            for table in (schema.vectors, schema.deletions)
        ),
        sa.select(put.number).where(
            put.catalog_id == key.catalog_id,
            put.space == key.space,
            put.version == key.version,
            put.sequence > sequence,
        ),
    )
