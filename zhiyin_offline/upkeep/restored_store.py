"""One store of a backup on its way to its place: a file that replaces another, or the tables of a database server."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from service_runtime.durable_files import make_folder, sync
from service_runtime.errors import StoreUnavailable
from service_runtime.sql import open_engine, reader, reading, sqlite_url, writing
from zhiyin_offline.upkeep.stores import Store, open_store
from zhiyin_offline.upkeep.table_copy import copy_tables


class StateExists(Exception):
    """There is something where the backup would go."""


class RestoredStore:
    """Makes the new store beside the present one first; `put` alone changes what is there.

    Args:
        kind: Of the store; it brings a schema up to date.
        server_url: Of a database server; empty: the store is a file.
        file: Where it is, or would be.
        tables: Of the store.
    """

    def __init__(self, kind: type[Store], server_url: str, file: Path, tables: sa.MetaData) -> None:
        self._kind, self._file, self._tables = kind, file, tables
        self._new = file.with_name(file.name + ".restoring")
        # Kept open until the end: as a writer of the item store it keeps services away.
        self._server = kind(server_url) if server_url else None

    def open(self, witness: sa.Table, *, replace: bool) -> None:
        """Refuses where there is state that must not go: a file, or rows in the `witness`.

        Raises:
            StateExists: There is.
            FailedPrecondition: A service writes to the database, or it is of a newer release.
        """
        if self._server is None:
            if self._file.exists() and not replace:
                raise StateExists(f"{self._file} exists; say --replace to put it aside, or use another folder")
            return
        open_store(self._server)
        if not replace:
            with reading(reader(self._server.engine)) as connection:
                there = connection.execute(sa.select(witness).limit(1)).first()
            if there is not None:
                raise StateExists(f"the database has rows in {witness.name}; say --replace to delete them")

    def prepare(self, source: Path, adjust: Callable[[sa.Connection], None]) -> None:
        """Makes the new store from a backup's file, which may be of an earlier release's schema.

        Raises:
            FailedPrecondition: It is of a newer release's.
            StoreUnavailable: The disk is full.
        """
        self._forget_new()
        shutil.copyfile(source, self._new)
        with closing(self._kind(sqlite_url(self._new))) as store:
            open_store(store)
            with writing(store.engine) as connection:
                adjust(connection)
        sync(self._new)

    def put(self, aside: Path) -> None:
        """Puts the new file into its place, and the present one into a folder below `aside`; or replaces the rows."""
        if self._server is not None:
            self._replace_rows(self._server)
            return
        _fold_log(self._file)
        for old in _with_companions(self._file):
            if old.exists():
                kept = aside / self._file.parent.name / old.name
                make_folder(kept.parent)
                old.rename(kept)
                sync(kept.parent)
        self._new.rename(self._file)
        sync(self._file.parent)

    def close(self) -> None:
        """Leaves nothing open or lying about."""
        if self._server is not None:
            self._server.close()
        self._forget_new()

    def _replace_rows(self, server: Store) -> None:
        source = open_engine(sqlite_url(self._new))
        try:
            with reading(reader(source)) as rows, writing(server.engine) as target:
                target.exec_driver_sql("SET LOCAL statement_timeout = 0")  # deleting millions of rows takes its time
                copy_tables(rows, target, self._tables)
        finally:
            source.dispose()

    def _forget_new(self) -> None:
        for leftover in _with_companions(self._new):
            leftover.unlink(missing_ok=True)


def _with_companions(file: Path) -> list[Path]:
    """A SQLite file, its write-ahead log and the index of that."""
    return [file, *(file.with_name(file.name + suffix) for suffix in ("-wal", "-shm"))]


def _fold_log(file: Path) -> None:
    """Moves what a killed service left in the write-ahead log into the file, so that one rename takes all of it."""
    if not file.with_name(file.name + "-wal").exists():
        return
    engine = open_engine(sqlite_url(file))
    try:
        with reading(reader(engine)) as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
    except (StoreUnavailable, SQLAlchemyError):
        pass  # damaged, which may be why somebody restores: the parts are kept as they are
    finally:
        engine.dispose()  # the last connection moves the log
