"""The saved indexes beside the store they were made from. Their content is compared by `zhiyin check`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from retrieval_service import snapshot
from retrieval_service import store_schema as schema
from retrieval_service.snapshot import SnapshotDamagedError
from service_runtime.errors import ZhiyinError
from zhiyin_offline.doctor.diagnosis import Diagnosis, note, ok, problem
from zhiyin_offline.doctor.patient import Patient
from zhiyin_offline.doctor.stores import read_only, store_urls

_SUBJECT = "index"
_LOW_RECALL = 0.95
_REBUILT = "nothing is lost: the service rebuilds it from the store at its next start"


def check_index(patient: Patient) -> Iterator[Diagnosis]:
    """The newest snapshot of every index."""
    if "retrieval" not in (urls := store_urls(patient)):
        return
    data_dir, url = urls["retrieval"]
    folders = sorted(path for path in (data_dir / "snapshots").glob("*") if path.is_dir())
    if not folders:
        yield ok(_SUBJECT, "no snapshots: an index below graph_min_vectors is filled from the store at the start")
        return
    try:
        with read_only(url) as connection:
            heads = {
                int(key): int(seq)
                for key, seq in connection.execute(sa.select(schema.head.c.catalog_id, schema.head.c.seq))
            }
            names = {int(row.catalog_id): str(row.name) for row in connection.execute(sa.select(schema.catalogs))}
    except (ZhiyinError, SQLAlchemyError):
        yield note(_SUBJECT, "snapshots cannot be compared with a store that cannot be read", "see stores")
        return
    for folder in folders:
        number = folder.name.split(".")[0]
        catalog = int(number) if number.isdigit() else -1
        yield _judged(f"{names.get(catalog, 'a dropped catalogue')} ({folder})", folder, heads.get(catalog))


def _judged(what: str, folder: Path, head: int | None) -> Diagnosis:
    try:
        info = snapshot.newest(folder)
    except SnapshotDamagedError as error:
        return problem(_SUBJECT, f"{what}: {error}", _REBUILT)
    if head is None:
        return note(
            _SUBJECT, f"{what}: belongs to no catalogue of the store", "the service removes it at its next start"
        )
    if info is None:
        return note(_SUBJECT, f"{what}: holds no finished snapshot", "one follows when it is due")
    if missing := snapshot.wrong_files(info.path):
        return problem(_SUBJECT, f"{what}: {missing}", _REBUILT)
    if info.sequence > head:
        why = f"{what}: is of sequence {info.sequence}, the store of {head}: an older store was put back"
        return problem(_SUBJECT, why, _REBUILT)
    age_h = (time.time() - info.created_at) / 3600
    found = f"{what}: snapshot of {age_h:.1f} h ago, {head - info.sequence} writes behind the store"
    if info.recall is not None and info.recall < _LOW_RECALL:
        return problem(_SUBJECT, f"{found}, recall@10 only {info.recall:.3f}", "see docs/alerts.md, ZhiyinRecallLow")
    return ok(_SUBJECT, found + (f", recall@10 {info.recall:.3f}" if info.recall is not None else ""))
