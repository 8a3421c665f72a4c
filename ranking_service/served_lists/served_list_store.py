"""Where served pages are kept: a table of its own, in a SQLite file beside the user store or in its PostgreSQL.

A log, not a promise: a commit may be lost with the power (synchronous=NORMAL), never the file. Nobody migrates it: a
release that needs other columns takes another table and lets this one grow old.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Engine, Index, Integer, LargeBinary, MetaData, Table, event

from ranking_service.served_lists.page_record import PageRecord
from ranking_service.users.store.schema import Text
from service_runtime import sql
from service_runtime.errors import StoreUnavailable

# Beside the payload: keys, ids and the entries of the indexes.
_ROW_BYTES = 300
_DELETED_AT_ONCE = 500
# When there is too much, so much is left: not every page may have to make room for itself.
_LEFT = 0.9

_metadata = MetaData()
_pages = Table(
    "served_pages",
    _metadata,
    Column("page_key", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("catalog", Text, nullable=False),
    Column("list_id", Text, nullable=False),
    Column("first_rank", Integer, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("user_key", BigInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Index("served_pages_by_list", "list_id"),
    Index("served_pages_by_user", "catalog", "user_id"),
    # Holds all that sums and deletions read, so that they touch no payload.
    Index("served_pages_by_age", "time_us", "size_bytes"),
)


class ServedListStore:
    """The table of served pages. Everything blocks; one thread writes.

    Args:
        url: Of the database.
        file: The SQLite file; None: it is PostgreSQL.
    """

    def __init__(self, url: str, file: Path | None) -> None:
        self._file = file
        self._engine: Engine = sql.open_engine(url)
        if file is not None:
            event.listen(self._engine, "connect", _as_a_log)
        self._reader = sql.reader(self._engine)
        self._open = False

    def exists(self) -> bool:
        """Whether there may be something in it."""
        return self._open or self._file is None or self._file.exists()

    def add(self, records: Sequence[PageRecord]) -> None:
        """Writes pages in one transaction.

        Raises:
            StoreUnavailable: The store cannot be written to; nothing was.
        """
        rows = [
            {
                "catalog": record.catalog,
                "list_id": record.list_id,
                "first_rank": record.first_rank,
                "user_id": record.user_id,
                "user_key": record.user_key,
                "time_us": record.time_us,
                "size_bytes": len(record.payload) + _ROW_BYTES,
                "payload": record.payload,
            }
            for record in records
        ]
        self._make()
        with sql.writing(self._engine) as connection:
            connection.execute(sa.insert(_pages), rows)

    def pages(self, catalog: str, list_id: str) -> list[PageRecord]:
        """The pages of a list in the order they were served.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        if not self.exists():
            return []
        columns = [_pages.c[name] for name in PageRecord.__dataclass_fields__]
        query = sa.select(*columns).where(_pages.c.list_id == list_id, _pages.c.catalog == catalog)
        with sql.reading(self._reader) as connection:
            if not self._open and not sa.inspect(connection).has_table(_pages.name):
                return []
            return [PageRecord(*row) for row in connection.execute(query.order_by(_pages.c.page_key))]

    def erase(self, catalog: str, user_id: str) -> int:
        """Deletes the pages of a user; tells how many.

        Raises:
            StoreUnavailable: The store cannot be written to.
        """
        return self._erase(_pages.c.catalog == catalog, _pages.c.user_id == user_id)

    def erase_keys(self, catalog: str, keys: Sequence[int]) -> int:
        """Deletes the pages of users by their keys; tells how many.

        Raises:
            StoreUnavailable: The store cannot be written to.
        """
        return self._erase(_pages.c.catalog == catalog, _pages.c.user_key.in_(keys))

    def _erase(self, *which: sa.ColumnElement[bool]) -> int:
        self._make()
        with sql.writing(self._engine) as connection:
            return int(connection.execute(sa.delete(_pages).where(*which)).rowcount)

    def trim(self, before_us: int, max_bytes: int) -> int:
        """Deletes pages served before a moment, and the oldest beyond a number of bytes; tells how many bytes are left.

        Raises:
            StoreUnavailable: The store cannot be written to.
        """
        self._make()
        while self._delete_oldest(_pages.c.time_us < before_us):
            pass
        left = self.size_bytes()
        if left > max_bytes:
            while left > max_bytes * _LEFT and self._delete_oldest(sa.true()):
                left = self.size_bytes()
        return left

    def size_bytes(self) -> int:
        """About the bytes of all pages."""
        total = sa.select(sa.func.coalesce(sa.func.sum(_pages.c.size_bytes), 0))
        with sql.reading(self._reader) as connection:
            return int(connection.execute(total).scalar_one())

    def _delete_oldest(self, which: sa.ColumnElement[bool]) -> bool:
        """Deletes some: each step holds up other writers for moments only. Tells whether there were any."""
        oldest = sa.select(_pages.c.page_key).where(which).order_by(_pages.c.time_us).limit(_DELETED_AT_ONCE)
        with sql.writing(self._engine) as connection:
            result = connection.execute(sa.delete(_pages).where(_pages.c.page_key.in_(oldest)))
            return int(result.rowcount) > 0

    def forget_deleted_bytes(self) -> bool:
        """See `sql.empty_write_ahead_log`."""
        return sql.empty_write_ahead_log(self._engine)

    def discard(self) -> None:
        """Drops everything; the next write makes the table anew."""
        if self._file is None:
            with sql.writing(self._engine) as connection:
                _metadata.drop_all(connection)
        else:
            self._engine.dispose()
            for suffix in ("-wal", "-shm", ""):
                self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)
        self._open = False

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def _make(self) -> None:
        if self._open:
            return
        if self._file is not None:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreUnavailable(f"there is no folder for served lists ({error.strerror})") from error
        with sql.writing(self._engine) as connection:
            if connection.dialect.name == "postgresql":  # replicas that start at once
                lock = "SELECT pg_advisory_xact_lock(hashtextextended('zhiyin served pages ' || current_schema(), 0))"
                connection.exec_driver_sql(lock)
            _metadata.create_all(connection)
        self._open = True


def _as_a_log(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def served_list_store(data_dir: Path, store_url: str) -> ServedListStore:
    """The store of a service: in the PostgreSQL of the user store, else in a file of its own in the data directory."""
    if store_url and not sql.is_sqlite(store_url):
        return ServedListStore(store_url, None)
    file = data_dir / "served_lists" / "served_lists.sqlite3"
    return ServedListStore(sql.sqlite_url(file), file)
