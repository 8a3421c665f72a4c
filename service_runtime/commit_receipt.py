"""What became of a commit whose answer was lost with the connection.

SQLite commits in this process and always answers. PostgreSQL may commit and lose the connection before it can say so;
it remembers every transaction by its id, and tells later what became of it (`pg_xact_status`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from service_runtime.errors import StoreUnavailable
from service_runtime.sql import is_data_error

_PAUSE_S = 0.2


class OutcomeUnknown(Exception):
    """Nobody can tell any more whether the transaction was committed."""


@dataclass(frozen=True, slots=True)
class CommitReceipt:
    """Names a transaction that is about to be committed."""

    transaction_id: str

    def was_committed(self, engine: Engine, keep_waiting: Callable[[], bool]) -> bool:
        """Asks the database until it answers.

        Args:
            engine: Of the database.
            keep_waiting: Asked after each attempt that brought no answer; False: give up.

        Raises:
            OutcomeUnknown: The database has forgotten the transaction, is another one, or waiting was given up.
        """
        while True:
            try:
                with engine.connect() as connection:
                    query = text("SELECT pg_xact_status(CAST(:id AS xid8))")
                    status = connection.execute(query, {"id": self.transaction_id}).scalar_one()
            except (SQLAlchemyError, StoreUnavailable) as error:
                if isinstance(error, DBAPIError) and is_data_error(error):
                    raise OutcomeUnknown("the database does not know the transaction: it is another one") from error
                status = "in progress"  # the database is away
            if status == "committed":
                return True
            if status == "aborted":
                return False
            if status != "in progress":  # else: the server has not noticed yet that the connection is gone
                raise OutcomeUnknown("the database does not know the transaction any more")
            if not keep_waiting():
                raise OutcomeUnknown("the database did not come back in time")
            time.sleep(_PAUSE_S)


def receipt(connection: Connection) -> CommitReceipt | None:
    """The receipt of the running transaction; None where a commit always answers, and for one that wrote nothing."""
    if connection.dialect.name != "postgresql":
        return None
    query = "SELECT CAST(pg_current_xact_id_if_assigned() AS text)"
    transaction_id = connection.exec_driver_sql(query).scalar_one()
    return None if transaction_id is None else CommitReceipt(transaction_id)
