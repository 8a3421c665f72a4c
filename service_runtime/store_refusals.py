"""Why a database refuses writes, in words that tell an operator what to do."""

from __future__ import annotations

import errno
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
    if extended in _FSYNC_FAILED:
        # First of all, and for whatever reason: the commit is in the log, and a restart may find it there.
        return StoreUnavailable(
            f"the disk of the {name} store did not confirm a write ({why}); the write may or may not be durable"
        )
    folder = Path(engine.url.database).parent if engine.dialect.name == "sqlite" and engine.url.database else None
    found = _tried(folder) if folder is not None and code in (_IO_ERROR, _CANNOT_OPEN) else 0
    if code == _READ_ONLY or sqlstate == _SQLSTATE_READ_ONLY or found == errno.EROFS:
        return StoreReadOnly(
            f"the {name} store cannot be written to ({why}); nothing was written. Make its disk writable: writes are "
            "then taken again"
        )
    if code == _FULL or sqlstate == _SQLSTATE_FULL or found in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFull(
            f"the {name} store has no room ({why}); nothing was written. Make room on its disk: writes are then taken "
            "again"
        )
    return StoreUnavailable(f"the {name} store could not commit ({why}); nothing was written")


def _tried(folder: Path) -> int:
    """What the system says to a small new file in the folder: 0 or an errno. SQLite does not pass on what it was told.

    A file system that went read-only after an error may still call itself writable, so nothing less will do.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY:
        largest = max((path.stat().st_size for path in folder.glob("*.sqlite3*")), default=0)
        if largest + _NO_ROOM_BYTES > limit:
            return errno.EFBIG
    probe = folder / f".room-{os.getpid()}"
    try:
        try:
            probe.write_bytes(bytes(_NO_ROOM_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        return error.errno or 0
    return 0
