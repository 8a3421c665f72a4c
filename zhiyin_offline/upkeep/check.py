"""`check`: proves that stores, indexes and statistics agree, and makes the derived ones anew where they do not."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from ranking_service.users.store import schema as user_schema
from retrieval_service import store_schema as item_schema
from retrieval_service.item_store import CatalogRow, ItemStore
from retrieval_service.named_spaces import IndexKey
from service_runtime.migrations import require_newest
from service_runtime.sql import cause, open_engine, reader, reading, writing
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as pb_grpc
from zhiyin_offline.upkeep.findings import Report
from zhiyin_offline.upkeep.index_check import check_live, check_snapshot
from zhiyin_offline.upkeep.item_store_check import check_items, check_vectors
from zhiyin_offline.upkeep.locations import Locations
from zhiyin_offline.upkeep.space_check import check_spaces
from zhiyin_offline.upkeep.user_store_check import check_folds, check_rules, check_users


def check_retrieval(
    locations: Locations, report: Report, *, repair: bool, live: pb_grpc.RetrievalServiceStub | None = None
) -> None:
    """Items, vectors and indexes.

    Args:
        locations: Where they are.
        report: Told what holds and what does not.
        repair: Makes derived things anew. Of a service that runs, only files are touched that it does not read again.
        live: The running service, whose index is compared too.

    Raises:
        grpc.RpcError: The running service does not answer.
    """
    store = ItemStore(locations.items)
    try:
        # Read beside the service: on PostgreSQL the engine that writes is for one process at a time.
        with writing(store.engine) if repair else store.reading() as connection:
            _look_at_file(connection, "item store", report)
            require_newest(connection, item_schema.SCHEMA)
            rows = store.catalogs(connection)
            indexes: list[tuple[CatalogRow, IndexKey]] = []
            for row in rows:
                check_items(store, connection, row, report)
                check_vectors(store, connection, row, report, repair=repair)
                indexes.append((row, IndexKey(row.catalog_id)))
                indexes.extend((row, key) for key in check_spaces(store, connection, row, report))
        for row, key in indexes:
            check_snapshot(store, row, key, _snapshots(locations, key), report, repair=repair)
        for row, key in indexes:
            if live is not None:
                check_live(live, store, row, key, _snapshots(locations, key), report)
    except _Damaged as damage:
        damage.tell("item store", report)
    finally:
        store.close()


def check_ranking(locations: Locations, report: Report, half_life_s: float, *, repair: bool) -> None:
    """Users, events, rules and statistics. Arguments as `check_retrieval`; `half_life_s` as the service is set."""
    engine = open_engine(locations.users)
    try:
        with writing(engine) if repair else reading(reader(engine)) as connection:
            _look_at_file(connection, "user store", report)
            require_newest(connection, user_schema.SCHEMA)
            facts: dict[str, str] = dict(connection.execute(sa.select(user_schema.store_facts)).all())
            catalogs = connection.execute(
                sa.select(user_schema.catalogs.c.name, user_schema.catalogs.c.catalog_key)
            ).all()
            for name, key in catalogs:
                check_users(connection, name, key, report, repair=repair)
                check_rules(connection, name, key, report)
        for name, key in catalogs:
            file = locations.ranking / "statistics" / f"{key}.statistics"
            check_folds(engine, name, key, file, facts["epoch"], half_life_s, report, repair=repair)
    except _Damaged as damage:
        damage.tell("user store", report)
    finally:
        engine.dispose()


def _snapshots(locations: Locations, key: IndexKey) -> Path:
    return locations.retrieval / "snapshots" / str(key)


class _Damaged(Exception):
    """A database file is damaged: what can be read of it proves nothing. The arguments are lines of what is wrong."""

    def tell(self, where: str, report: Report) -> None:
        for line in self.args:
            report.found(where, line, derived=False)


def _look_at_file(connection: sa.Connection, where: str, report: Report) -> None:
    """SQLite's own look at its pages, indexes and references.

    Raises:
        _Damaged: Pages or indexes are.
    """
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")  # a count of millions of events takes its time
        return
    try:
        damage = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(20)") if row[0] != "ok"]
    except DatabaseError as error:  # so damaged that the look itself cannot go on
        damage = [cause(error)]
    if damage:
        raise _Damaged(*damage)
    references = connection.exec_driver_sql("PRAGMA foreign_key_check")
    astray = [f"{row[0]} row {row[1]}: no {row[2]}" for row in references]
    for line in astray:
        report.found(where, line, derived=False)
    if not astray:
        report.proved.append(f"{where}: the database file is whole, every reference leads somewhere")
