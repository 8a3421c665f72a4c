"""Who may write to a database that somebody keeps in memory; the lock of the server is played: everybody gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from retrieval_service.store_schema import store_facts
from service_runtime.only_writer import OnlyWriter, WriterReplaced
from service_runtime.sql import open_engine, sqlite_url


class DriverConnection:
    """Gives the lock to everybody, and reads what is committed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._row: Any = None

    def execute(self, statement: str) -> DriverConnection:
        if "pg_try_advisory_lock" in statement:
            self._row = (True,)
        else:
            with self._engine.connect() as connection:
                self._row = connection.exec_driver_sql(statement).fetchone()
        return self

    def fetchone(self) -> Any:
        return self._row

    def commit(self) -> None: ...


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = open_engine(sqlite_url(tmp_path / "store.sqlite3"))
    with engine.begin() as connection:
        store_facts.create(connection)
    return engine


def test_a_claim_that_was_not_committed_is_made_again(engine: Engine) -> None:
    writer = OnlyWriter("item store", store_facts)
    with engine.connect() as connection:
        writer.claim(connection)
        connection.rollback()
    writer.hold(DriverConnection(engine))  # the next attempt of the same start
    with engine.begin() as connection:
        mark = writer.claim(connection)
    writer.claimed(mark)
    writer.hold(DriverConnection(engine))


def test_whoever_comes_back_after_another_may_not_go_on(engine: Engine) -> None:
    first, second = (OnlyWriter("item store", store_facts) for _ in range(2))
    for writer in (first, second):
        with engine.begin() as connection:
            mark = writer.claim(connection)
        writer.claimed(mark)
    second.hold(DriverConnection(engine))
    with pytest.raises(WriterReplaced):
        first.hold(DriverConnection(engine))
