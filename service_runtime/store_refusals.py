"""Why a database refuses writes, in words that tell an operator what to do."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from service_runtime.errors import StoreFull, StoreReadOnly, StoreUnavailable

# Primary result codes of SQLite, and PostgreSQL's SQLSTATE for the same.
_FULL, _READ_ONLY, _IO_ERROR, _CANNOT_OPEN = 13, 8, 10, 14
_FSYNC_FAILED = {1034, 1290}  # SQLITE_IOERR_FSYNC, SQLITE_IOERR_DIR_FSYNC
_SQLSTATE_FULL, _SQLSTATE_READ_ONLY = "53100", "25006"
# A transaction needs a few pages of the log, and SQLite's shared memory grows by 32 KiB.
_NO_ROOM_BYTES = 64 << 10


def refusal(engine: Engine, error: SQLAlchemyError, name: str, why: str) -> StoreUnavailable:
    """The error for the callers of writes that the database refused.

    Args:
        engine: Of the database.
        error: What its driver raised.
        name: Of the store, for people.
        why: The driver's words, without anything a user wrote.
    """
    orig = error.orig if isinstance(error, DBAPIError) else None
    extended = getattr(orig, "sqlite_errorcode", 0) or 0
    sqlstate = getattr(orig, "sqlstate", None)
    code = extended & 0xFF
    folder = Path(engine.url.database).parent if engine.dialect.name == "sqlite" and engine.url.database else None
    disk_fault = folder is not None and code in (_IO_ERROR, _CANNOT_OPEN)
    if code == _READ_ONLY or sqlstate == _SQLSTATE_READ_ONLY or (disk_fault and _is_read_only(folder)):
        return StoreReadOnly(
            f"the {name} store cannot be written to ({why}); nothing was written. Make its disk writable: writes are "
            "then taken again"
        )
    if code == _FULL or sqlstate == _SQLSTATE_FULL or (disk_fault and _has_no_room(folder)):
        return StoreFull(
            f"the {name} store has no room ({why}); nothing was written. Make room on its disk: writes are then taken "
            "again"
        )
    if extended in _FSYNC_FAILED:
        return StoreUnavailable(
            f"the disk of the {name} store did not confirm a write ({why}); the write may or may not be durable"
        )
    return StoreUnavailable(f"the {name} store could not commit ({why}); nothing was written")


def _is_read_only(folder: Path | None) -> bool:
    return folder is not None and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _has_no_room(folder: Path | None) -> bool:
    """Whether the disk is full or a file of the folder has reached the limit on the size of files."""
    if folder is None:
        return False
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < _NO_ROOM_BYTES:
        return True
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == resource.RLIM_INFINITY:
        return False
    largest = max((path.stat().st_size for path in folder.glob("*.sqlite3*")), default=0)
    return largest + _NO_ROOM_BYTES > limit
