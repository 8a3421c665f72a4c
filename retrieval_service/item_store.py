"""The truth of the service: catalogues, items and their raw vectors in SQL. The only file that imports sqlalchemy.

Methods take the connection of the transaction they belong to; `service_runtime.sql_writer` owns the ones that write.
A catalogue's sequence number is taken from `catalog_head` inside the writing transaction, so commit order is sequence
order. An item keeps its `number` for life and no number is used twice, so everything derived may refer to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

from retrieval_service.centering import CenteringState
from service_runtime import sql

Connection = sa.Connection

_metadata = MetaData()
_id = BigInteger().with_variant(Integer, "sqlite")  # SQLite: only INTEGER PRIMARY KEY is the row id


def _catalog_id(**options: Any) -> Column[int]:
    return Column("catalog_id", _id, ForeignKey("catalogs.catalog_id"), nullable=False, **options)


_catalogs = Table(
    "catalogs",
    _metadata,
    Column("catalog_id", _id, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),
    Column("display_name", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    sqlite_autoincrement=True,  # the id of a dropped catalogue never comes back
)
_head = Table(
    "catalog_head",
    _metadata,
    _catalog_id(primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("next_number", BigInteger, nullable=False),
)
_dropped = Table(
    "dropped_catalogs",
    _metadata,
    Column("name", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)
_attribute_kinds = Table(
    "attribute_kinds",
    _metadata,
    _catalog_id(primary_key=True),
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
)
_spaces = Table(
    "spaces",
    _metadata,
    _catalog_id(primary_key=True),
    Column("space", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("dimensions", Integer, nullable=False),
    Column("metric", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("vector_count", BigInteger, nullable=False),
    Column("vector_total", LargeBinary, nullable=False),  # float64, for the mean
    Column("mean", LargeBinary),  # float32, what is subtracted; NULL: nothing
    Column("mean_epoch", BigInteger, nullable=False),
    Column("changed_since_mean", BigInteger, nullable=False),
)
_items = Table(
    "items",
    _metadata,
    _catalog_id(primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("passage_hash", LargeBinary, nullable=False),
    Column("text_truncated", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # zhiyin.common.v1.Item
    UniqueConstraint("catalog_id", "number"),
)
_vectors = Table(
    "vectors",
    _metadata,
    _catalog_id(primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),  # float32, little-endian, as the encoder gave it: not centred
    sa.Index("vectors_by_sequence", "catalog_id", "sequence"),
)
_deletions = Table(
    "deletions",
    _metadata,
    _catalog_id(primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
)
_request_ids = Table(
    "request_ids",
    _metadata,
    _catalog_id(primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("request_hash", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    sa.Index("request_ids_by_time", "created_at_us"),
)

SEMANTIC = "semantic"
_ID_CHUNK = 500
_REQUEST_ID_RETENTION_US = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class CatalogRow:
    """A catalogue: `created_at_us` in microseconds since 1970."""

    catalog_id: int
    name: str
    display_name: str
    created_at_us: int


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


@dataclass(frozen=True, slots=True)
class SpaceRow:
    """Version 1 of the semantic space of a catalogue. `metric` is `cosine`."""

    fingerprint: str
    dimensions: int
    metric: str
    centering: CenteringState
    version: int = 1


@dataclass(frozen=True, slots=True)
class VectorChanges:
    """A part of what happened to vectors after a sequence number: new ones, and items that are gone."""

    numbers: NDArray[np.int64]
    vectors: NDArray[np.float32]
    deleted: NDArray[np.int64]


class ItemStore:
    """Catalogues, items and vectors in one SQL database.

    Args:
        url: Of the database, such as `sqlite:////var/lib/zhiyin/retrieval/items.sqlite3`.
    """

    def __init__(self, url: str) -> None:
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self.url = url
        self.engine = sql.open_engine(url)
        self._reader = sql.reader(self.engine)

    def create_tables(self) -> None:
        """Makes what is missing."""
        with self.engine.begin() as connection:
            _metadata.create_all(connection)

    def close(self) -> None:
        """Gives connections back."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state and takes no write lock."""
        with self._reader.connect() as connection, connection.begin():
            yield connection

    # ---- catalogues

    def catalogs(self, connection: Connection) -> list[CatalogRow]:
        """All of them by name."""
        rows = connection.execute(sa.select(_catalogs).order_by(_catalogs.c.name))
        return [CatalogRow(*row) for row in rows]

    def catalog(self, connection: Connection, name: str) -> CatalogRow | None:
        """A catalogue by its name."""
        row = connection.execute(sa.select(_catalogs).where(_catalogs.c.name == name)).one_or_none()
        return None if row is None else CatalogRow(*row)

    def create_catalog(self, connection: Connection, name: str, display_name: str) -> CatalogRow:
        """A new, empty one. Where one of that name was dropped, sequence numbers and so revisions go on after it.

        Whoever remembers something of the former one by revision or sequence never takes it for something of this one.
        """
        dropped = connection.execute(sa.select(_dropped.c.seq).where(_dropped.c.name == name)).scalar_one_or_none()
        values = {"name": name, "display_name": display_name, "created_at_us": time.time_ns() // 1000}
        key = connection.execute(_catalogs.insert().values(values)).inserted_primary_key
        assert key is not None
        connection.execute(_head.insert().values(catalog_id=key[0], seq=dropped or 0, next_number=0))
        return CatalogRow(catalog_id=key[0], **values)  # type: ignore[arg-type]

    def drop_catalog(self, connection: Connection, catalog_id: int) -> int:
        """Deletes everything of it but its last sequence number; returns how many items there were."""
        name = connection.execute(sa.select(_catalogs.c.name).where(_catalogs.c.catalog_id == catalog_id)).scalar_one()
        connection.execute(_dropped.delete().where(_dropped.c.name == name))
        connection.execute(_dropped.insert().values(name=name, seq=self.sequence(connection, catalog_id) + 1))
        tables = (_items, _vectors, _deletions, _request_ids, _spaces, _attribute_kinds, _head, _catalogs)
        counts = [connection.execute(t.delete().where(t.c.catalog_id == catalog_id)).rowcount for t in tables]
        return counts[0]

    def sequence(self, connection: Connection, catalog_id: int) -> int:
        """The sequence number of the last write."""
        return int(connection.execute(sa.select(_head.c.seq).where(_head.c.catalog_id == catalog_id)).scalar_one())

    def take_sequence(self, connection: Connection, catalog_id: int, new_items: int = 0) -> tuple[int, int]:
        """The sequence number of a write, and the first of `new_items` fresh item numbers."""
        row = connection.execute(
            _head.update()
            .where(_head.c.catalog_id == catalog_id)
            .values(seq=_head.c.seq + 1, next_number=_head.c.next_number + new_items)
            .returning(_head.c.seq, _head.c.next_number)
        ).one()
        return int(row.seq), int(row.next_number) - new_items

    # ---- items

    def items(self, connection: Connection, catalog_id: int, ids: Sequence[str]) -> dict[str, ItemRow]:
        """Those of the ids that exist."""
        found: dict[str, ItemRow] = {}
        for start in range(0, len(ids), _ID_CHUNK):
            chunk = ids[start : start + _ID_CHUNK]
            rows = connection.execute(
                _select_items().where(_items.c.catalog_id == catalog_id, _items.c.item_id.in_(chunk))
            )
            found.update((row.item_id, _item_row(row)) for row in rows)
        return found

    def items_after(self, connection: Connection, catalog_id: int, after: str, limit: int) -> list[ItemRow]:
        """The next items in the order of the UTF-8 bytes of their ids."""
        rows = connection.execute(
            _select_items()
            .where(_items.c.catalog_id == catalog_id, _items.c.item_id > after)
            .order_by(_items.c.item_id)
            .limit(limit)
        )
        return [_item_row(row) for row in rows]

    def item_count(self, connection: Connection, catalog_id: int) -> int:
        """How many items there are."""
        query = sa.select(sa.func.count()).select_from(_items).where(_items.c.catalog_id == catalog_id)
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
            statement = _items.insert().values(catalog_id=catalog_id, item_id=sa.bindparam("b_item_id"))
            connection.execute(statement, created)
        if changed:
            where = (_items.c.catalog_id == catalog_id, _items.c.item_id == sa.bindparam("b_item_id"))
            connection.execute(_items.update().where(*where), changed)

    def delete_items(self, connection: Connection, catalog_id: int, sequence: int, rows: Sequence[ItemRow]) -> None:
        """Deletes items and their vectors and remembers their numbers for replay."""
        for table, column, values in (
            (_items, _items.c.item_id, [row.item_id for row in rows]),
            (_vectors, _vectors.c.number, [row.number for row in rows]),
        ):
            where = (table.c.catalog_id == catalog_id, column == sa.bindparam("b_value"))
            connection.execute(table.delete().where(*where), [{"b_value": value} for value in values])
        marks = [{"catalog_id": catalog_id, "sequence": sequence, "number": row.number} for row in rows]
        connection.execute(_deletions.insert(), marks)

    def attribute_kinds(self, connection: Connection, catalog_id: int) -> dict[str, str]:
        """The type of each attribute name, fixed by its first value."""
        rows = connection.execute(
            sa.select(_attribute_kinds.c.name, _attribute_kinds.c.kind).where(
                _attribute_kinds.c.catalog_id == catalog_id
            )
        )
        return {row.name: row.kind for row in rows}

    def add_attribute_kinds(self, connection: Connection, catalog_id: int, kinds: dict[str, str]) -> None:
        """Fixes the types of names that had none."""
        if kinds:
            rows = [{"catalog_id": catalog_id, "name": name, "kind": kind} for name, kind in kinds.items()]
            connection.execute(_attribute_kinds.insert(), rows)

    # ---- vectors

    def space(self, connection: Connection, catalog_id: int) -> SpaceRow | None:
        """The semantic space; None until the first vector."""
        row = connection.execute(
            sa.select(_spaces).where(_spaces.c.catalog_id == catalog_id, _spaces.c.space == SEMANTIC)
        ).one_or_none()
        if row is None:
            return None
        state = CenteringState(
            row.vector_count,
            np.frombuffer(row.vector_total, dtype="<f8").copy(),
            None if row.mean is None else np.frombuffer(row.mean, dtype="<f4").copy(),
            row.mean_epoch,
            row.changed_since_mean,
        )
        return SpaceRow(row.fingerprint, row.dimensions, row.metric, state, row.version)

    def put_space(self, connection: Connection, catalog_id: int, space: SpaceRow, *, new: bool) -> None:
        """Writes the semantic space."""
        state = space.centering
        values = {
            "dimensions": space.dimensions,
            "metric": space.metric,
            "fingerprint": space.fingerprint,
            "vector_count": state.count,
            "vector_total": state.total.astype("<f8").tobytes(),
            "mean": None if state.mean is None else state.mean.astype("<f4").tobytes(),
            "mean_epoch": state.epoch,
            "changed_since_mean": state.changed,
        }
        key = {"catalog_id": catalog_id, "space": SEMANTIC, "version": space.version}
        if new:
            connection.execute(_spaces.insert().values(**key, **values))
        else:
            where = [_spaces.c[name] == value for name, value in key.items()]
            connection.execute(_spaces.update().where(*where).values(**values))

    def vectors(
        self, connection: Connection, catalog_id: int, numbers: Sequence[int], dimensions: int
    ) -> NDArray[np.float32]:
        """Raw vectors of some items, shape (n, dimensions), in no promised order; items without one are left out."""
        blobs: list[bytes] = []
        for start in range(0, len(numbers), _ID_CHUNK):
            chunk = numbers[start : start + _ID_CHUNK]
            query = sa.select(_vectors.c.data).where(_vectors.c.catalog_id == catalog_id, _vectors.c.number.in_(chunk))
            blobs.extend(connection.execute(query).scalars())
        return _matrix(blobs, dimensions)

    def put_vectors(
        self,
        connection: Connection,
        catalog_id: int,
        sequence: int,
        numbers: Sequence[int],
        vectors: NDArray[np.float32],
        new_numbers: set[int],
    ) -> None:
        """Writes raw vectors: those of `new_numbers` do not exist, the others do."""
        rows = [
            {"b_number": number, "sequence": sequence, "data": vector.astype("<f4").tobytes()}
            for number, vector in zip(numbers, vectors, strict=True)
        ]
        created = [row for row in rows if row["b_number"] in new_numbers]
        changed = [row for row in rows if row["b_number"] not in new_numbers]
        if created:
            statement = _vectors.insert().values(catalog_id=catalog_id, number=sa.bindparam("b_number"))
            connection.execute(statement, created)
        if changed:
            where = (_vectors.c.catalog_id == catalog_id, _vectors.c.number == sa.bindparam("b_number"))
            connection.execute(_vectors.update().where(*where), changed)

    def vector_changes(
        self, connection: Connection, catalog_id: int, after: int, dimensions: int, page: int = 2000
    ) -> Iterator[VectorChanges]:
        """What happened to vectors after sequence number `after`, in parts; applying one again changes nothing."""
        deleted = connection.execute(
            sa.select(_deletions.c.number).where(_deletions.c.catalog_id == catalog_id, _deletions.c.sequence > after)
        ).scalars()
        gone = np.fromiter(deleted, dtype=np.int64)
        if len(gone):
            yield VectorChanges(np.empty(0, np.int64), np.empty((0, dimensions), np.float32), gone)
        rows = connection.execution_options(yield_per=page).execute(
            sa.select(_vectors.c.number, _vectors.c.data)
            .where(_vectors.c.catalog_id == catalog_id, _vectors.c.sequence > after)
            .order_by(_vectors.c.sequence, _vectors.c.number)
        )
        for part in rows.partitions(page):
            numbers = np.asarray([row.number for row in part], dtype=np.int64)
            yield VectorChanges(numbers, _matrix([row.data for row in part], dimensions), np.empty(0, np.int64))

    def forget_deletions(self, connection: Connection, catalog_id: int, up_to: int) -> None:
        """Drops marks that no replay needs any more: every index starts at `up_to` or from nothing."""
        where = (_deletions.c.catalog_id == catalog_id, _deletions.c.sequence <= up_to)
        connection.execute(_deletions.delete().where(*where))

    # ---- request ids

    def remembered_request(
        self, connection: Connection, catalog_id: int, request_id: str
    ) -> tuple[bytes, bytes] | None:
        """Hash and response of a write of the last 24 hours."""
        oldest = time.time_ns() // 1000 - _REQUEST_ID_RETENTION_US
        row = connection.execute(
            sa.select(_request_ids.c.request_hash, _request_ids.c.response).where(
                _request_ids.c.catalog_id == catalog_id,
                _request_ids.c.request_id == request_id,
                _request_ids.c.created_at_us >= oldest,
            )
        ).one_or_none()
        return None if row is None else (row.request_hash, row.response)

    def remember_request(
        self, connection: Connection, catalog_id: int, request_id: str, request_hash: bytes, response: bytes
    ) -> None:
        """Keeps a response for 24 hours, and forgets older ones."""
        now = time.time_ns() // 1000
        connection.execute(_request_ids.delete().where(_request_ids.c.created_at_us < now - _REQUEST_ID_RETENTION_US))
        connection.execute(
            _request_ids.insert().values(
                catalog_id=catalog_id,
                request_id=request_id,
                request_hash=request_hash,
                response=response,
                created_at_us=now,
            )
        )


def _select_items() -> sa.Select[Any]:
    c = _items.c
    return sa.select(c.item_id, c.number, c.revision, c.sequence, c.passage_hash, c.text_truncated, c.payload)


def _item_row(row: Any) -> ItemRow:
    item_id, number, revision, sequence, passage_hash, truncated, payload = row
    return ItemRow(item_id, number, revision, sequence, passage_hash, bool(truncated), payload)


def _matrix(blobs: Sequence[bytes], dimensions: int) -> NDArray[np.float32]:
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), dimensions).astype(np.float32, copy=False)
