"""Opens databases the way a store of truth needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path}"


def open_engine(url: str) -> Engine:
    """An engine whose commits survive a power cut.

    SQLite: WAL so that readers never wait for the writer, synchronous=FULL so that a commit is on the disk when it
    returns, BEGIN IMMEDIATE so that a writer takes its lock at once, and savepoints that work (the driver's own
    transaction handling is switched off). Other databases are opened as they are.
    """
    # The parameters of a statement are what users wrote: an exception must not carry them into a log.
    engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"), hide_parameters=True)
    if make_url(url).get_backend_name() == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA secure_delete=ON")  # an erased user leaves no bytes in free pages
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    # Readers use DEFERRED: they must not take the writer's lock.
    deferred = connection.get_execution_options().get("zhiyin_read_only", False)
    connection.exec_driver_sql("BEGIN DEFERRED" if deferred else "BEGIN IMMEDIATE")


def reader(engine: Engine) -> Engine:
    """The same engine for reads: transactions that take no write lock."""
    return engine.execution_options(zhiyin_read_only=True)
