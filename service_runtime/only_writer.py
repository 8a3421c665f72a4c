"""One process at a time writes to a PostgreSQL database that somebody keeps a copy of in memory.

Every connection that writes holds an advisory lock of the server's, from before its first statement until it ends,
however that happens: a killed process leaves no lock behind, and a process that loses its connection has to get the
lock again before it can write. In between another one may have come and gone, so each leaves its mark (`claim`), and
whoever finds the mark changed must not go on.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from sqlalchemy import Connection, Table, delete, insert

from service_runtime.errors import FailedPrecondition, StoreUnavailable

_FACT = "writer"
_POLL_S = 0.1


class WriterReplaced(Exception):
    """Another process has written since: what this one holds in memory is not the store's any more."""


class OnlyWriter:
    """Holds the lock of one database for this process.

    Args:
        name: Of the store, for the lock and for messages, such as `item store`.
        facts: The store's table of facts (`name`, `value`).
        start_wait_s: Longest wait for a predecessor that is just ending.
        wait_s: Longest wait for the lock after a lost connection; the server may not have noticed the loss yet.
    """

    def __init__(self, name: str, facts: Table, *, start_wait_s: float = 5.0, wait_s: float = 2.0) -> None:
        self._name, self._facts = name, facts
        self._start_wait_s, self._wait_s = start_wait_s, wait_s
        self._mark: str | None = None

    def hold(self, driver_connection: Any) -> None:
        """Takes the lock for a new connection of the driver.

        Raises:
            FailedPrecondition: At the start: another process holds it.
            StoreUnavailable: Later: it is still held, perhaps by our own lost connection.
            WriterReplaced: Another process has written in between.
        """
        first = self._mark is None
        give_up = time.monotonic() + (self._start_wait_s if first else self._wait_s)
        lock = f"SELECT pg_try_advisory_lock(hashtextextended('zhiyin {self._name} ' || current_schema(), 0))"
        while not _scalar(driver_connection, lock):
            self._check_mark(driver_connection)
            if time.monotonic() > give_up:
                if first:
                    raise FailedPrecondition(
                        f"another service writes to this {self._name} and keeps it in memory: stop that one, or give "
                        "this one a database of its own (store_url)",
                        reason="STORE_IN_USE",
                    )
                raise StoreUnavailable(f"the lock of the {self._name} is held by another connection")
            time.sleep(_POLL_S)
        self._check_mark(driver_connection)

    def claim(self, connection: Connection) -> str:
        """Leaves a mark of this process in a transaction of the start; `claimed` takes it once that is committed."""
        mark = secrets.token_hex(8)
        connection.execute(delete(self._facts).where(self._facts.c.name == _FACT))
        connection.execute(insert(self._facts).values(name=_FACT, value=mark))
        return mark

    def claimed(self, mark: str) -> None:
        """From here on whoever else has written is noticed."""
        self._mark = mark

    def _check_mark(self, driver_connection: Any) -> None:
        if self._mark is None:
            return
        found = _scalar(driver_connection, f"SELECT value FROM {self._facts.name} WHERE name = '{_FACT}'")
        if found != self._mark:
            raise WriterReplaced(f"another process has taken over the {self._name}")


def _scalar(driver_connection: Any, statement: str) -> Any:
    row = driver_connection.execute(statement).fetchone()
    driver_connection.commit()
    return row[0] if row is not None else None
