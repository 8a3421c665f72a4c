"""Copies all rows of a store into another of the same schema, from and to any database that the stores know.

A copy of rows rather than of pages: it holds nothing of what was deleted, and what was in SQLite can go on in
PostgreSQL or the other way round.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

_PAGE = 2000


def copy_tables(source: sa.Connection, target: sa.Connection, metadata: sa.MetaData) -> dict[str, int]:
    """Replaces what the target holds; returns the rows copied, by table.

    Args:
        source: In a transaction that sees one state.
        target: In a transaction; it has the tables.
        metadata: Of the tables.
    """
    for table in reversed(metadata.sorted_tables):
        target.execute(table.delete())
    copied = {}
    for table in metadata.sorted_tables:
        copied[table.name] = 0
        rows = source.execution_options(yield_per=_PAGE).execute(sa.select(table)).mappings()
        for part in rows.partitions(_PAGE):
            target.execute(table.insert(), [dict(row) for row in part])
            copied[table.name] += len(part)
        key = _counted_key(table)
        if key is not None:
            _put_position(target, table, key, _position(source, table, key))
    return copied


def _counted_key(table: sa.Table) -> sa.Column[Any] | None:
    """The key that the database counts up by itself, where there is one."""
    keys = list(table.primary_key.columns)
    if len(keys) == 1 and isinstance(keys[0].type, sa.Integer) and keys[0].autoincrement and not keys[0].foreign_keys:
        return keys[0]
    return None


def _position(connection: sa.Connection, table: sa.Table, key: sa.Column[Any]) -> int:
    """The last key given out, also to rows that are gone: none may be given out twice."""
    highest = int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(key), 0))).scalar_one())
    if connection.dialect.name == "sqlite":
        # The table exists once any table counts for good.
        known = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'").first()
        query = sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name").bindparams(name=table.name)
        given = connection.execute(query).scalar_one_or_none() if known else None
    else:
        # The name is as the server quotes it, with its schema: another schema may have a sequence of the same name.
        sequence = _sequence_name(connection, table, key)
        given = connection.exec_driver_sql(
            f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}"
        ).scalar_one()
    return max(highest, int(given or 0))


def _put_position(connection: sa.Connection, table: sa.Table, key: sa.Column[Any], position: int) -> None:
    if connection.dialect.name != "sqlite":
        if position:
            sequence = _sequence_name(connection, table, key)
            connection.execute(sa.text("SELECT setval(:name, :position)").bindparams(name=sequence, position=position))
        return
    if not table.dialect_options["sqlite"]["autoincrement"]:
        return  # counts on from its largest row
    forget = sa.text("DELETE FROM sqlite_sequence WHERE name = :name").bindparams(name=table.name)
    connection.execute(forget)
    keep = sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :position)")
    connection.execute(keep.bindparams(name=table.name, position=position))


def _sequence_name(connection: sa.Connection, table: sa.Table, key: sa.Column[Any]) -> str:
    query = sa.text("SELECT pg_get_serial_sequence(:table, :key)").bindparams(table=table.name, key=key.name)
    return str(connection.execute(query).scalar_one())
