"""What a database says when it refuses a write becomes what an operator has to do."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from service_runtime import store_refusals
from service_runtime.errors import StoreFull, StoreReadOnly, StoreUnavailable
from service_runtime.sql import open_engine, sqlite_url
from service_runtime.store_refusals import refusal


class PostgresError(Exception):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


def sqlite_error(code: int) -> OperationalError:
    error = sqlite3.OperationalError("as SQLite says")
    error.sqlite_errorcode = code
    return OperationalError(None, None, error)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_engine(sqlite_url(tmp_path / "store.sqlite3"))


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (sqlite_error(sqlite3.SQLITE_FULL), StoreFull, "Make room"),
        (sqlite_error(sqlite3.SQLITE_READONLY_DBMOVED), StoreReadOnly, "writable"),
        (sqlite_error(sqlite3.SQLITE_IOERR_WRITE), StoreUnavailable, "nothing was written"),
        (sqlite_error(sqlite3.SQLITE_IOERR_FSYNC), StoreUnavailable, "may or may not be durable"),
        (sqlite_error(sqlite3.SQLITE_BUSY), StoreUnavailable, "nothing was written"),
        (OperationalError(None, None, PostgresError("53100")), StoreFull, "Make room"),
        (OperationalError(None, None, PostgresError("25006")), StoreReadOnly, "writable"),
        (OperationalError(None, None, PostgresError("57P01")), StoreUnavailable, "nothing was written"),
    ],
)
def test_a_refusal_says_what_to_do(
    engine: Engine, error: OperationalError, kind: type[StoreUnavailable], told: str
) -> None:
    refused = refusal(engine, error, "item", "as the driver says")
    assert type(refused) is kind
    assert told in refused.message
    assert "as the driver says" in refused.message
    assert refused.retry_after_s


@pytest.mark.parametrize(
    ("system_says", "kind"),
    [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EROFS, StoreReadOnly), (errno.EIO, StoreUnavailable)],
)
def test_an_error_of_the_disk_is_told_by_trying(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, system_says: int, kind: type[StoreUnavailable]
) -> None:
    def refuse(path: Path, data: bytes) -> int:
        raise OSError(system_says, "as the system says")

    monkeypatch.setattr(store_refusals.Path, "write_bytes", refuse)
    assert type(refusal(engine, sqlite_error(sqlite3.SQLITE_IOERR_WRITE), "item", "disk I/O error")) is kind


def test_a_disk_that_is_full_when_it_must_confirm_leaves_it_open_what_was_written(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_refusals, "_tried", lambda folder: errno.ENOSPC)
    refused = refusal(engine, sqlite_error(sqlite3.SQLITE_IOERR_FSYNC), "item", "disk I/O error")
    assert "may or may not be durable" in refused.message
    assert "nothing was written" not in refused.message


def test_trying_leaves_nothing_behind(engine: Engine, tmp_path: Path) -> None:
    refusal(engine, sqlite_error(sqlite3.SQLITE_IOERR_WRITE), "item", "disk I/O error")
    assert list(tmp_path.iterdir()) == []
