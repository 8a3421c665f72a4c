"""Proves that the user store agrees with itself, and the saved statistics with a recount of the event log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from google.protobuf.message import DecodeError

from ranking_service.rules.rule_conversions import to_domain
from ranking_service.statistics import statistics_snapshot
from ranking_service.statistics.catalog_statistics import CatalogStatistics
from ranking_service.statistics.statistics_snapshot import SnapshotUnusable
from ranking_service.users.store import schema
from ranking_service.users.store.event_rows import read_log
from service_runtime.sql import reader, reading
from zhiyin.ranking.v1.ranking_service_pb2 import Rule
from zhiyin_offline.upkeep.findings import Report

_RELATIVE = 1e-9


def check_users(connection: sa.Connection, catalog: str, key: int, report: Report, *, repair: bool) -> None:
    """Users and events of a catalogue: sequences, counts, nobody's events, and nothing of those who were erased."""
    where = f"user store, catalogue {catalog}"
    users, events, erasures = schema.users, schema.events, schema.erasures
    head = int(
        connection.execute(
            sa.select(schema.catalogs.c.sequence).where(schema.catalogs.c.catalog_key == key)
        ).scalar_one()
    )
    of_users = sa.select(users.c.user_key).where(users.c.catalog_key == key)

    def count(query: sa.Select[Any]) -> int:
        return int(connection.execute(sa.select(sa.func.count()).select_from(query.subquery())).scalar_one())

    faults = {
        "events after the last write": sa.select(events.c.sequence).where(
            events.c.catalog_key == key, events.c.sequence > head
        ),
        "users after the last write": sa.select(users.c.user_key).where(
            users.c.catalog_key == key, users.c.sequence > head
        ),
        "events of nobody": sa.select(events.c.sequence).where(
            events.c.catalog_key == key, events.c.user_key.not_in(of_users)
        ),
        "users that were erased and are there": sa.select(users.c.user_key).where(
            users.c.user_key.in_(sa.select(erasures.c.user_key).where(erasures.c.catalog_key == key))
        ),
    }
    for what, query in faults.items():
        if found := count(query):
            report.found(where, f"{found} {what}", derived=False)
    counted = (
        sa.select(events.c.user_key, sa.func.count().label("n"))
        .where(events.c.catalog_key == key)
        .group_by(events.c.user_key)
        .subquery()
    )
    actual = sa.func.coalesce(counted.c.n, 0)
    miscounted = connection.execute(
        sa.select(users.c.user_key, actual)
        .select_from(users.outerjoin(counted, counted.c.user_key == users.c.user_key))
        .where(users.c.catalog_key == key, users.c.event_count != actual)
    ).all()
    if miscounted:
        if repair:
            for user_key, right in miscounted:
                connection.execute(users.update().where(users.c.user_key == user_key).values(event_count=right))
        report.found(where, f"{len(miscounted)} users with a wrong count of events", derived=True, repaired=repair)
    total = count(sa.select(events.c.sequence).where(events.c.catalog_key == key))
    report.proved.append(f"{where}: {count(of_users)} users and {total} events up to write {head}")


def check_rules(connection: sa.Connection, catalog: str, key: int, report: Report) -> None:
    """The rules of a catalogue: each can be read, and replicas will hear of the last write."""
    where = f"user store, catalogue {catalog}"
    of_catalog = (schema.catalogs.c.sequence, schema.catalogs.c.rules_sequence)
    head, noted = connection.execute(sa.select(*of_catalog).where(schema.catalogs.c.catalog_key == key)).one()
    rows = connection.execute(sa.select(schema.rules).where(schema.rules.c.catalog_key == key)).all()
    if any(row.sequence > noted for row in rows) or noted > head:
        report.found(where, "rules after the last write", derived=False)
    unread = [row.rule_id for row in rows if not _can_be_read(row)]
    if unread:
        report.found(where, f"{len(unread)} rules that cannot be read, such as {unread[0]!r}", derived=False)
    report.proved.append(f"{where}: {len(rows)} rules")


def _can_be_read(row: Any) -> bool:
    try:
        return bool(to_domain(Rule.FromString(row.payload)).id == row.rule_id)
    except (DecodeError, ValueError):
        return False


def check_folds(
    engine: sa.Engine,
    catalog: str,
    key: int,
    file: Path,
    epoch: str,
    half_life_s: float,
    report: Report,
    *,
    repair: bool,
) -> None:
    """The saved statistics and the log after them, against a recount of the whole log, pair for pair.

    The log is looked at after the snapshot was read: a service may save a newer one at any time.

    Args:
        file: The snapshot.
        epoch: Of the store.
        half_life_s: Of popularity, as the service is set.
        repair: Removes statistics that differ; the service folds the log from its beginning then.
    """
    where = f"statistics, catalogue {catalog}"
    try:
        saved = statistics_snapshot.load(file, epoch, half_life_s)
    except SnapshotUnusable as why:
        if file.exists():
            _remove(file, where, str(why), report, repair)
        else:
            report.proved.append(f"{where}: none are saved; the log is folded at start")
        return
    at = saved.sequence
    recount = CatalogStatistics(half_life_s)
    with reading(reader(engine)) as connection:
        query = sa.select(schema.catalogs.c.sequence).where(schema.catalogs.c.catalog_key == key)
        head = int(connection.execute(query).scalar_one())
        for statistics in (saved, recount):
            for page, reached in read_log(connection, key, statistics.sequence, head):
                statistics.apply(page, reached)
    if not _same(saved, recount):
        _remove(file, where, "they differ from a recount of the log", report, repair)
        return
    pairs = len(recount.pairs.values())
    report.proved.append(f"{where}: saved at write {at}, {pairs} pairs of user and item as a recount of the log says")


def _same(one: CatalogStatistics, other: CatalogStatistics) -> bool:
    left, right = one.pairs.values(), other.pairs.values()
    if left.keys() != right.keys() or one.popularity.base != other.popularity.base:
        return False
    if left and not np.allclose(list(left.values()), [right[pair] for pair in left], rtol=_RELATIVE, atol=1e-12):
        return False
    popular, recounted = (dict(statistics.popular(0.0, 1 << 62)) for statistics in (one, other))
    scale = max((abs(amount) for amount in recounted.values()), default=1.0)
    return popular.keys() == recounted.keys() and all(
        abs(amount - recounted[item]) <= _RELATIVE * scale for item, amount in popular.items()
    )


def _remove(file: Path, where: str, what: str, report: Report, repair: bool) -> None:
    if repair:
        file.unlink()
    report.found(where, what, derived=True, repaired=repair)
