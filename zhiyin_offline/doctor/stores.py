"""The two stores: can they be opened, by whom are they held, which schema, how much room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, inspect, make_url
from sqlalchemy.exc import SQLAlchemyError

from ranking_service.users.store.schema import SCHEMA as USERS
from retrieval_service.store_schema import SCHEMA as ITEMS
from service_runtime.errors import ZhiyinError
from service_runtime.folder_lock import unfinished_work
from service_runtime.migrations import StoreSchema, require_newest
from service_runtime.sql import is_sqlite, open_engine, reader, reading
from zhiyin_offline.doctor.diagnosis import Diagnosis, note, ok, problem
from zhiyin_offline.doctor.patient import Patient

_SUBJECT = "stores"
_LOW_BYTES, _NONE_BYTES = 2_000_000_000, 64 << 20
FILES = {"retrieval": "items.sqlite3", "ranking": "users.sqlite3"}


def store_urls(patient: Patient) -> dict[str, tuple[Path, str]]:
    """Data folder and database of each service that has them."""
    return {
        name: (settings.data_dir, settings.store_url or f"sqlite:///{settings.data_dir / FILES[name]}")
        for name, settings in (("retrieval", patient.retrieval), ("ranking", patient.ranking))
        if settings is not None
    }


@contextmanager
def read_only(url: str) -> Iterator[Connection]:
    """A transaction that reads one state and writes nothing, not even a database that is not there yet.

    Raises:
        ZhiyinError: The database does not answer.
        SQLAlchemyError: It is damaged, or none.
    """
    if not is_sqlite(url):
        engine = open_engine(url, connections=1)
        try:
            with reading(reader(engine)) as connection:
                yield connection
        finally:
            engine.dispose()
        return
    file = str(make_url(url).database)
    # Without a write-ahead log nobody has it open. Then SQLite must not make one: it would stay, and perhaps belong to
    # another user than the service's.
    how = "mode=ro" if Path(f"{file}-wal").exists() else "immutable=1"
    engine = create_engine(f"sqlite:///file:{file}?{how}&uri=true", hide_parameters=True)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def check_stores(patient: Patient) -> Iterator[Diagnosis]:
    """Both stores and their folders."""
    schemas = {"retrieval": ITEMS, "ranking": USERS}
    for name, (folder, url) in store_urls(patient).items():
        if not folder.is_dir():
            yield note(_SUBJECT, f"{name}: {folder} does not exist yet", "the service makes it at its first start")
            continue
        yield from _check_folder(name, folder)
        yield from _check_database(name, url, schemas[name])


def _check_folder(name: str, folder: Path) -> Iterator[Diagnosis]:
    if not os.access(folder, os.W_OK):
        yield problem(_SUBJECT, f"{name}: {folder} may not be written to", "give it to the user who runs the service")
    if unfinished := unfinished_work(folder):
        yield problem(_SUBJECT, f"{name}: {folder} is unfinished work: {unfinished}", "do what it says")
    holders = _holders(folder / ".lock")
    if holders:
        yield ok(_SUBJECT, f"{name}: {folder} is held by process {', '.join(map(str, holders))}")
    free = shutil.disk_usage(folder).free
    room = f"{name}: {free / 1e9:.1f} GB are free beside {folder}"
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if free < _NONE_BYTES:
        yield problem(_SUBJECT, room, "make room: writes are refused when there is none (STORE_FULL)")
    elif free < max(_LOW_BYTES, used):
        yield note(
            _SUBJECT, f"{room}, which holds {used / 1e9:.1f} GB", "make room for growth and for the next snapshot"
        )
    else:
        yield ok(_SUBJECT, room)


def _check_database(name: str, url: str, schema: StoreSchema) -> Iterator[Diagnosis]:
    if is_sqlite(url) and not Path(str(make_url(url).database)).is_file():
        yield note(_SUBJECT, f"{name}: there is no {schema.name} yet", "the service makes it at its first start")
        return
    try:
        with read_only(url) as connection:
            if not inspect(connection).get_table_names():
                yield note(
                    _SUBJECT, f"{name}: the {schema.name} is empty", "the service makes its tables at its first start"
                )
                return
            require_newest(connection, schema)
    except ZhiyinError as error:
        yield problem(_SUBJECT, f"{name}: {error.message}", "docs/operations.md has stores and upgrades")
    except SQLAlchemyError as error:
        why = type(getattr(error, "orig", None) or error).__name__
        yield problem(
            _SUBJECT,
            f"{name}: the {schema.name} cannot be read ({why})",
            "look at the rights of its files; if they are damaged, restore a backup (`zhiyin restore`)",
        )
    else:
        yield ok(_SUBJECT, f"{name}: the {schema.name} opens and has the schema of this release, {schema.head}")


def _holders(lock: Path) -> list[int]:
    """Processes that hold the lock of a folder, as the kernel tells; nothing is taken to find out."""
    try:
        status, table = lock.stat(), Path("/proc/locks").read_text()
    except OSError:
        return []
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    fields = [line.split() for line in table.splitlines()]
    return [int(each[4]) for each in fields if len(each) > 5 and each[1] == "FLOCK" and each[5] == place]
