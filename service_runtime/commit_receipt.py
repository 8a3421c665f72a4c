"""What became of a commit whose answer was lost with the connection.

SQLite commits in this process and always answers. PostgreSQL may commit and lose the connection before it can say so.
So every writing transaction leaves a mark of its own in a row of this process's, and afterwards the row tells. It does
not do to ask for the state of the transaction by its number: a server that crashed may give the number out again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from sqlalchemy import Connection, Engine, Table, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from service_runtime.errors import StoreUnavailable

_PAUSE_S = 0.2


class OutcomeUnknown(Exception):
    """Nobody can tell any more whether the transaction was committed."""


class CommitMarks:
    """The marks of one writer.

    Args:
        engine: Of a PostgreSQL database.
        facts: The store's table of facts (`name`, `value`).
    """

    def __init__(self, engine: Engine, facts: Table) -> None:
        self._engine, self._facts = engine, facts
        self._name = f"last commit of {secrets.token_hex(8)}"
        self._is_row = facts.c.name == self._name
        self._prepared = False

    def prepare(self) -> None:
        """Makes the row, once, before the first transaction that marks it."""
        if self._prepared:
            return
        with self._engine.begin() as connection:
            connection.execute(delete(self._facts).where(self._is_row))
            connection.execute(insert(self._facts).values(name=self._name, value=""))
        self._prepared = True

    def leave(self, connection: Connection) -> str | None:
        """Marks the running transaction; None when it has written nothing, so that nothing can be lost."""
        mark = secrets.token_hex(8)
        has_written = func.pg_current_xact_id_if_assigned().is_not(None)
        marked = connection.execute(update(self._facts).where(self._is_row, has_written).values(value=mark))
        return mark if marked.rowcount else None

    def is_committed(self, mark: str, keep_waiting: Callable[[], bool]) -> bool:
        """Asks the database until it answers.

        Args:
            mark: From `leave`.
            keep_waiting: Asked after each attempt that brought no answer; False: give up.

        Raises:
            OutcomeUnknown: The row is gone, as in a database that was restored, or waiting was given up.
        """
        # Locked: while the server has not noticed that the connection is gone, it may still commit.
        query = select(self._facts.c.value).where(self._is_row).with_for_update()
        while True:
            try:
                with self._engine.begin() as connection:
                    found = connection.execute(query).scalar_one_or_none()
            except (SQLAlchemyError, StoreUnavailable):
                if not keep_waiting():
                    raise OutcomeUnknown("the database did not come back in time") from None
                time.sleep(_PAUSE_S)
                continue
            if found is None:
                raise OutcomeUnknown("the database is not the one that was written to")
            return bool(found == mark)

    def remove(self) -> None:
        """Takes the row away; at the end of a writer."""
        if self._prepared:
            with self._engine.begin() as connection:
                connection.execute(delete(self._facts).where(self._is_row))
