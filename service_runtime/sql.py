"""Opens databases the way a store of truth needs them, and reads them in one snapshot."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from service_runtime.errors import StoreUnavailable
from service_runtime.telemetry import get_logger

_BUSY_S = 10.0
_log = get_logger(__name__)

# PostgreSQL: no statement, lock or idle transaction may hold a store up for ever, and a peer that is gone is noticed.
_SERVER_OPTIONS = {
    "statement_timeout": "60s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_CLIENT_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
BUSY_TIMEOUT_MS = 10_000
"""SQLite: the longest wait for another process's lock."""
_CHECKPOINT_WAIT_MS = 100
_POOL_TIMEOUT_S = 1.0  # of a read for its turn, when a server that hangs holds all connections
_START_PAUSE_S = 1.0
# The statement was at fault (a constraint, a bad value) rather than the database.
_DATA_ERRORS = {"IntegrityError", "DataError", "ProgrammingError"}
# Two transactions got in each other's way and one of them was rolled back: serialization failure, deadlock.
_COLLISIONS = {"40001", "40P01"}


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path}"


def is_sqlite(url: str) -> bool:
    """Whether a store URL names a SQLite database."""
    return make_url(url).get_backend_name() == "sqlite"


def check_url(url: str) -> str:
    """Checks a store URL at the time settings are read. Nothing it says repeats the URL, which may hold a password.

    Raises:
        ValueError: It is no URL, of another database, or the driver is missing; the message says what to do.
    """
    try:
        parsed = _parsed(url)
    except (ArgumentError, ValueError):  # the latter of what stands for the port, and may be a part of the password
        raise ValueError("is no database URL; write postgresql+psycopg://USER@HOST:5432/DATABASE") from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise ValueError(
            f"{parsed.drivername} is not supported; use sqlite:///FILE or postgresql+psycopg://USER@HOST:5432/DATABASE"
        )
    if parsed.get_backend_name() == "postgresql":
        try:
            import psycopg  # noqa: F401
        except ImportError:
            raise ValueError("the PostgreSQL driver is not installed: pip install 'zhiyin[postgres]'") from None
    return url


def open_engine(
    url: str,
    *,
    connections: int | None = None,
    connect: Callable[[Any], None] | None = None,
    one_writer_at_a_time: str = "",
) -> Engine:
    """An engine whose commits survive a power cut.

    SQLite: WAL so that readers never wait for the writer, synchronous=FULL so that a commit is on the disk when it
    returns, BEGIN IMMEDIATE so that a writer takes its lock at once, and savepoints that work (the driver's own
    transaction handling is switched off). PostgreSQL: the server's own durability (`fsync`, `synchronous_commit`), with
    bounds on how long anything may hang.

    Args:
        url: Of the database.
        connections: Most connections at once; None: as many as a service needs. PostgreSQL only.
        connect: Called with each new connection of the driver before anybody uses it; what it raises ends the attempt
            to connect. PostgreSQL only.
        one_writer_at_a_time: Name of a lock that every writing transaction holds from its beginning to its end, so that
            replicas never wait for each other in a circle; empty: none. SQLite has one writer at a time anyway.
    """
    parsed = _parsed(url)
    # The parameters of a statement are what users wrote: an exception must not carry them into a log.
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, hide_parameters=True)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    size, overflow = (5, 10) if connections is None else (connections, 0)
    engine = create_engine(
        parsed,
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=size,
        max_overflow=overflow,
        pool_timeout=_POOL_TIMEOUT_S,
        connect_args=_postgres_arguments(parsed),
    )
    if connect is not None:
        event.listen(engine, "do_connect", _connecting(connect))
    if one_writer_at_a_time:
        event.listen(engine, "begin", _begin_in_turn(one_writer_at_a_time))
    return engine


def reader(engine: Engine) -> Engine:
    """The same engine for reads: transactions that see one state throughout and take no write lock."""
    reads = engine.execution_options(zhiyin_read_only=True)
    if engine.dialect.name == "sqlite":
        return reads
    return reads.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction of a `reader`: all its statements see one state.

    Raises:
        StoreUnavailable: The database does not answer, or ended the connection.
    """
    try:
        with engine.connect() as connection, connection.begin():
            yield connection
    except SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        raise StoreUnavailable(f"the store cannot be read now ({cause(error)})") from error


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes, outside of the writer's thread: at the start of a service.

    Raises:
        StoreUnavailable: The database does not answer, or cannot commit.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        raise StoreUnavailable(f"the store cannot be written to now ({cause(error)})") from error


async def when_available(load: Callable[[], None]) -> None:
    """Runs what a service loads at its start, in a thread, as soon as the store answers; says in the log what is amiss.

    A service that starts before its database, or on a full disk, is alive and not ready until that is mended.
    """
    while True:
        try:
            return await asyncio.to_thread(load)
        except StoreUnavailable as error:
            found = error.__cause__.orig if isinstance(error.__cause__, DBAPIError) else None
            # Of an attempt to connect: names the server, never the password, and no values.
            detail = str(found).strip().splitlines()[:1] if getattr(found, "sqlstate", "") is None else []
            _log.warning("store_not_available", reason=error.message, detail="".join(detail))
            await asyncio.sleep(_START_PAUSE_S)


def empty_write_ahead_log(engine: Engine) -> bool:
    """SQLite: moves the write-ahead log into the database and empties it, so that deleted rows leave no bytes behind.

    Returns:
        False when a reader held the log back, or the disk is full or fails; try again. PostgreSQL: True, and the
        operator's VACUUM policy counts.
    """
    if engine.dialect.name != "sqlite":
        return True
    try:
        with engine.connect() as connection:
            cursor = connection.connection.cursor()  # no transaction: a checkpoint cannot run within one
            try:
                # It keeps writers out while it waits for readers: seconds beside a backup would hold up everybody.
                cursor.execute(f"PRAGMA busy_timeout={_CHECKPOINT_WAIT_MS}")
                row = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
                cursor.close()
    except (sqlite3.Error, SQLAlchemyError):
        return False
    return row is not None and row[0] == 0


def is_damaged(error: BaseException) -> bool:
    """SQLite: whether the file is no database, or not a whole one."""
    found = getattr(error, "orig", error)
    return getattr(found, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_data_error(error: DBAPIError) -> bool:
    """Whether the statement was at fault (a constraint, a bad value) rather than the database."""
    return type(error).__name__ in _DATA_ERRORS


def is_unavailable(error: SQLAlchemyError) -> bool:
    """Whether the database was at fault: away, out of connections, full, or too slow."""
    if isinstance(error, DBAPIError) and getattr(error.orig, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
        return False  # a statement that can never work; SQLite's driver calls it operational like a full disk
    return isinstance(error, PoolTimeoutError) or (isinstance(error, DBAPIError) and not is_data_error(error))


def is_collision(error: SQLAlchemyError) -> bool:
    """Whether the same transaction, tried again, may well succeed: another one was in its way."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _COLLISIONS


def cause(error: SQLAlchemyError) -> str:
    """What went wrong, for logs and callers.

    SQLite's texts name no values. PostgreSQL's do (`Key (user_id)=(...)`), and name the server: kind and code only.
    """
    if not isinstance(error, DBAPIError) or error.orig is None:
        return type(error).__name__
    if not hasattr(error.orig, "sqlstate"):
        return str(error.orig)
    state = error.orig.sqlstate
    return f"{type(error.orig).__name__}, SQLSTATE {state}" if state else "the database does not answer"


def _parsed(url: str) -> URL:
    parsed = make_url(url)
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


def _postgres_arguments(url: URL) -> dict[str, Any]:
    """Arguments for the driver; what the URL says itself goes first."""
    own = url.query.get("options", "")
    options = [f"-c {name}={value}" for name, value in _SERVER_OPTIONS.items()]
    options += [own] if isinstance(own, str) else list(own)
    client = {name: value for name, value in _CLIENT_OPTIONS.items() if name not in url.query}
    name = {} if "application_name" in url.query else {"application_name": "zhiyin"}
    return {**client, **name, "options": " ".join(options).strip()}


def _connecting(prepare: Callable[[Any], None]) -> Callable[..., Any]:
    def do_connect(dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
        connection = dialect.connect(*arguments, **options)
        try:
            prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    return do_connect


def _begin_in_turn(name: str) -> Callable[[Connection], None]:
    lock = f"SELECT pg_advisory_xact_lock(hashtextextended('zhiyin writes to the {name} ' || current_schema(), 0))"

    def begin(connection: Connection) -> None:
        if not connection.get_execution_options().get("zhiyin_read_only", False):
            connection.exec_driver_sql(lock)

    return begin


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA secure_delete=ON")  # an erased user leaves no bytes in free pages
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:
    """SQLite does not wait by itself where several connections switch a new file at once."""
    give_up = time.monotonic() + _BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Any) -> None:
    # Readers use DEFERRED: they must not take the writer's lock.
    deferred = connection.get_execution_options().get("zhiyin_read_only", False)
    connection.exec_driver_sql("BEGIN DEFERRED" if deferred else "BEGIN IMMEDIATE")
