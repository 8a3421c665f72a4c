"""The truth of the service: catalogues, items and, by `vector_rows` and `space_rows`, their vectors in SQL.

Methods take the connection of the transaction they belong to; `service_runtime.sql_writer` owns the ones that write.
A catalogue's sequence number is taken from `catalog_head` inside the writing transaction, so commit order is sequence
order. An item keeps its `number` for life and no number is used twice, so everything derived may refer to it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from retrieval_service import store_schema as schema
from retrieval_service.space_rows import SpaceRows
from retrieval_service.vector_rows import ID_CHUNK, Connection, VectorRows
from service_runtime import migrations, sql
from service_runtime.only_writer import OnlyWriter

# Fewer than the threads of the service: a database that hangs leaves some of them to searches, which are in memory.
_READING_CONNECTIONS = 6
_REQUEST_ID_RETENTION_US = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class CatalogRow:
    """A catalogue: `created_at_us` in microseconds since 1970, `max_items` 0 for no limit of its own."""

    catalog_id: int
    name: str
    display_name: str
    created_at_us: int
    max_items: int = 0


@dataclass(frozen=True, slots=True)
class ItemRow:
    """An item as stored; `payload` is a serialised zhiyin.common.v1.Item."""

    item_id: str
    number: int
    revision: int
    sequence: int
    passage_hash: bytes
    text_truncated: bool
    payload: bytes


class ItemStore(VectorRows, SpaceRows):
    """Catalogues, items and vectors in one SQL database.

    Args:
        url: Of the database, such as `sqlite:////var/lib/zhiyin/retrieval/items.sqlite3` or
            `postgresql+psycopg://zhiyin@db/items`.

    Attributes:
        engine: For the writer.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._only_writer: OnlyWriter | None = None
        if sql.is_sqlite(url):
            if url.startswith("sqlite:///"):
                Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            self.engine = sql.open_engine(url)
            self._readers = self.engine
        else:
            # Index and directory are in memory, so nobody else may write: the one connection that does holds a lock.
            self._only_writer = OnlyWriter(schema.SCHEMA.name, schema.store_facts)
            self.engine = sql.open_engine(url, connections=1, connect=self._only_writer.hold)
            self._readers = sql.open_engine(url, connections=_READING_CONNECTIONS)
        self._reader = sql.reader(self._readers)

    def create_tables(self) -> None:
        """Makes or upgrades the schema; on PostgreSQL this process is the only writer from here on.

        Raises:
            FailedPrecondition: The database is of a newer release, somebody else's, or written to by another process.
            StoreUnavailable: It does not answer.
        """
        with sql.writing(self.engine) as connection:
            migrations.upgrade(connection, schema.SCHEMA)
            mark = self._only_writer.claim(connection) if self._only_writer is not None else None
        if self._only_writer is not None and mark is not None:
            self._only_writer.claimed(mark)

    def close(self) -> None:
        """Gives connections back."""
        self.engine.dispose()
        self._readers.dispose()

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that sees one state and takes no write lock.

        Raises:
            StoreUnavailable: The database does not answer.
        """
        return sql.reading(self._reader)

    # ---- catalogues

    def catalogs(self, connection: Connection) -> list[CatalogRow]:
        """All of them by name."""
        rows = connection.execute(sa.select(schema.catalogs).order_by(schema.catalogs.c.name))
        return [CatalogRow(*row) for row in rows]

    def catalog(self, connection: Connection, name: str) -> CatalogRow | None:
        """A catalogue by its name."""
        row = connection.execute(sa.select(schema.catalogs).where(schema.catalogs.c.name == name)).one_or_none()
        return None if row is None else CatalogRow(*row)

    def create_catalog(self, connection: Connection, name: str, display_name: str, max_items: int = 0) -> CatalogRow:
        """A new, empty one. Where one of that name was dropped, sequence numbers and so revisions go on after it.

        Whoever remembers something of the former one by revision or sequence never takes it for something of this one.
        """
        dropped = connection.execute(
            sa.select(schema.dropped.c.seq).where(schema.dropped.c.name == name)
        ).scalar_one_or_none()
        values = {
            "name": name,
            "display_name": display_name,
            "created_at_us": time.time_ns() // 1000,
            "max_items": max_items,
        }
        key = connection.execute(schema.catalogs.insert().values(values)).inserted_primary_key
        assert key is not None
        connection.execute(schema.head.insert().values(catalog_id=key[0], seq=dropped or 0, next_number=0))
        return CatalogRow(catalog_id=key[0], **values)  # type: ignore[arg-type]

    def change_catalog(self, connection: Connection, row: CatalogRow) -> None:
        """Writes a catalogue's settings."""
        values = {"display_name": row.display_name, "max_items": row.max_items}
        where = schema.catalogs.c.catalog_id == row.catalog_id
        connection.execute(schema.catalogs.update().where(where).values(values))

    def drop_catalog(self, connection: Connection, catalog_id: int) -> int:
        """Deletes everything of it but its last sequence number; returns how many items there were."""
        name = connection.execute(
            sa.select(schema.catalogs.c.name).where(schema.catalogs.c.catalog_id == catalog_id)
        ).scalar_one()
        connection.execute(schema.dropped.delete().where(schema.dropped.c.name == name))
        connection.execute(schema.dropped.insert().values(name=name, seq=self.sequence(connection, catalog_id) + 1))
        tables = (
            schema.items,
            schema.vectors,
            schema.space_vectors,
            schema.projections,
            schema.deletions,
            schema.request_ids,
            schema.spaces,
            schema.attribute_kinds,
            schema.head,
            schema.catalogs,
        )
        counts = [connection.execute(t.delete().where(t.c.catalog_id == catalog_id)).rowcount for t in tables]
        return counts[0]

    def sequence(self, connection: Connection, catalog_id: int) -> int:
        """The sequence number of the last write."""
        return int(
            connection.execute(sa.select(schema.head.c.seq).where(schema.head.c.catalog_id == catalog_id)).scalar_one()
        )

    def sequences(self, connection: Connection) -> dict[str, int]:
        """The sequence number of the last write of every catalogue, by its name."""
        both = schema.catalogs.join(schema.head, schema.head.c.catalog_id == schema.catalogs.c.catalog_id)
        rows = connection.execute(sa.select(schema.catalogs.c.name, schema.head.c.seq).select_from(both))
        return {str(name): int(sequence) for name, sequence in rows}

    def take_sequence(self, connection: Connection, catalog_id: int, new_items: int = 0) -> tuple[int, int]:
        """The sequence number of a write, and the first of `new_items` fresh item numbers."""
        row = connection.execute(
            schema.head.update()
            .where(schema.head.c.catalog_id == catalog_id)
            .values(seq=schema.head.c.seq + 1, next_number=schema.head.c.next_number + new_items)
            .returning(schema.head.c.seq, schema.head.c.next_number)
        ).one()
        return int(row.seq), int(row.next_number) - new_items

    # ---- items

    def items(self, connection: Connection, catalog_id: int, ids: Sequence[str]) -> dict[str, ItemRow]:
        """Those of the ids that exist."""
        found: dict[str, ItemRow] = {}
        for start in range(0, len(ids), ID_CHUNK):
            chunk = ids[start : start + ID_CHUNK]
            rows = connection.execute(
                _select_items().where(schema.items.c.catalog_id == catalog_id, schema.items.c.item_id.in_(chunk))
            )
            found.update((row.item_id, _item_row(row)) for row in rows)
        return found

    def numbers(self, connection: Connection, catalog_id: int, ids: Sequence[str]) -> dict[str, int]:
        """The numbers of those of the ids that exist."""
        found: dict[str, int] = {}
        c = schema.items.c
        for start in range(0, len(ids), ID_CHUNK):
            chunk = ids[start : start + ID_CHUNK]
            query = sa.select(c.item_id, c.number).where(c.catalog_id == catalog_id, c.item_id.in_(chunk))
            found.update((row.item_id, row.number) for row in connection.execute(query))
        return found

    def items_after(self, connection: Connection, catalog_id: int, after: str, limit: int) -> list[ItemRow]:
        """The next items in the order of the UTF-8 bytes of their ids."""
        rows = connection.execute(
            _select_items()
            .where(schema.items.c.catalog_id == catalog_id, schema.items.c.item_id > after)
            .order_by(schema.items.c.item_id)
            .limit(limit)
        )
        return [_item_row(row) for row in rows]

    def item_count(self, connection: Connection, catalog_id: int) -> int:
        """How many items there are."""
        query = sa.select(sa.func.count()).select_from(schema.items).where(schema.items.c.catalog_id == catalog_id)
        return int(connection.execute(query).scalar_one())

    def put_items(self, connection: Connection, catalog_id: int, rows: Sequence[ItemRow], new_ids: set[str]) -> None:
        """Writes items: those in `new_ids` do not exist, the others do."""
        values = [
            {
                "b_item_id": row.item_id,
                "number": row.number,
                "revision": row.revision,
                "sequence": row.sequence,
                "passage_hash": row.passage_hash,
                "text_truncated": int(row.text_truncated),
                "payload": row.payload,
            }
            for row in rows
        ]
        created = [v for v in values if v["b_item_id"] in new_ids]
        changed = [v for v in values if v["b_item_id"] not in new_ids]
        if created:
            statement = schema.items.insert().values(catalog_id=catalog_id, item_id=sa.bindparam("b_item_id"))
            connection.execute(statement, created)
        if changed:
            where = (schema.items.c.catalog_id == catalog_id, schema.items.c.item_id == sa.bindparam("b_item_id"))
            connection.execute(schema.items.update().where(*where), changed)

    def delete_items(self, connection: Connection, catalog_id: int, sequence: int, rows: Sequence[ItemRow]) -> None:
        """Deletes items and their vectors and remembers their numbers for replay."""
        for table, column, values in (
            (schema.items, schema.items.c.item_id, [row.item_id for row in rows]),
            (schema.vectors, schema.vectors.c.number, [row.number for row in rows]),
        ):
            where = (table.c.catalog_id == catalog_id, column == sa.bindparam("b_value"))
            connection.execute(table.delete().where(*where), [{"b_value": value} for value in values])
        marks = [{"catalog_id": catalog_id, "sequence": sequence, "number": row.number} for row in rows]
        connection.execute(schema.deletions.insert(), marks)

    def attribute_kinds(self, connection: Connection, catalog_id: int) -> dict[str, str]:
        """The type of each attribute name, fixed by its first value."""
        rows = connection.execute(
            sa.select(schema.attribute_kinds.c.name, schema.attribute_kinds.c.kind).where(
                schema.attribute_kinds.c.catalog_id == catalog_id
            )
        )
        return {row.name: row.kind for row in rows}

    def add_attribute_kinds(self, connection: Connection, catalog_id: int, kinds: dict[str, str]) -> None:
        """Fixes the types of names that had none."""
        if kinds:
            rows = [{"catalog_id": catalog_id, "name": name, "kind": kind} for name, kind in kinds.items()]
            connection.execute(schema.attribute_kinds.insert(), rows)

    # ---- request ids

    def remembered_request(
        self, connection: Connection, catalog_id: int, request_id: str
    ) -> tuple[bytes, bytes] | None:
        """Hash and response of a write of the last 24 hours."""
        oldest = time.time_ns() // 1000 - _REQUEST_ID_RETENTION_US
        row = connection.execute(
            sa.select(schema.request_ids.c.request_hash, schema.request_ids.c.response).where(
                schema.request_ids.c.catalog_id == catalog_id,
                schema.request_ids.c.request_id == request_id,
                schema.request_ids.c.created_at_us >= oldest,
            )
        ).one_or_none()
        return None if row is None else (row.request_hash, row.response)

    def remember_request(
        self, connection: Connection, catalog_id: int, request_id: str, request_hash: bytes, response: bytes
    ) -> None:
        """Keeps a response for 24 hours, and forgets older ones."""
        now = time.time_ns() // 1000
        connection.execute(
            schema.request_ids.delete().where(schema.request_ids.c.created_at_us < now - _REQUEST_ID_RETENTION_US)
        )
        connection.execute(
            schema.request_ids.insert().values(
                catalog_id=catalog_id,
                request_id=request_id,
                request_hash=request_hash,
                response=response,
                created_at_us=now,
            )
        )


def _select_items() -> sa.Select[Any]:
    c = schema.items.c
    return sa.select(c.item_id, c.number, c.revision, c.sequence, c.passage_hash, c.text_truncated, c.payload)


def _item_row(row: Any) -> ItemRow:
    item_id, number, revision, sequence, passage_hash, truncated, payload = row
    return ItemRow(item_id, number, revision, sequence, passage_hash, bool(truncated), payload)
