"""`restore_backup`: brings a backup back as the state of services that are stopped.

Time goes back for the stores and for nobody else. So that nothing that somebody remembers is taken for something it is
not, the user store gets a new epoch (consistency tokens of the lost time are refused as of another store), and the
sequence numbers of items go on far behind any that the lost time can have given out (revisions and caches).
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from ranking_service.users.store import schema as user_schema
from ranking_service.users.store.store import UserStore
from retrieval_service import store_schema as item_schema
from retrieval_service.item_store import ItemStore
from service_runtime.durable_files import sync
from service_runtime.folder_lock import FolderLock
from service_runtime.sql import open_engine, reader, sqlite_url
from zhiyin_offline.upkeep import backup_folder
from zhiyin_offline.upkeep.backup_folder import BackupManifest, read_whole
from zhiyin_offline.upkeep.locations import Locations
from zhiyin_offline.upkeep.table_copy import copy_tables

# Writes that a catalogue can have had in a second of the lost time; measured are below a thousand.
_WRITES_PER_S = 100_000


class StateExists(Exception):
    """There is something where the backup would go."""


def restore_backup(
    backup: Path, locations: Locations, *, replace: bool = False, say: Callable[[str], None] = lambda _: None
) -> BackupManifest:
    """Writes a backup's stores, keys and models where the services look for them.

    Args:
        backup: A folder that `write_backup` made.
        locations: Where everything goes.
        replace: Puts what is there aside (files) or deletes it (rows of a database server) instead of refusing.
        say: Told what happens.

    Raises:
        BackupDamaged: It is not whole; nothing was touched.
        FailedPrecondition: A service runs on the state.
        StateExists: There is state already, and `replace` is not given.
    """
    say("reading the backup")
    manifest = read_whole(backup)
    lost_s = max((datetime.now(UTC) - datetime.fromisoformat(manifest.created_at)).total_seconds(), 0.0) + 1.0
    with ExitStack() as stack:
        for folder in (locations.ranking, locations.retrieval):
            lock = FolderLock(folder)
            lock.take()
            stack.callback(lock.release)
        aside = locations.root / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        users = _Destination(locations.user_store_url, locations.user_file, replace, aside)
        items = _Destination(locations.item_store_url, locations.item_file, replace, aside)
        # Both, before anything is replaced: a refusal leaves everything as it was.
        users.prepare(_open_users, user_schema.users)
        items.prepare(_open_items, item_schema.items)
        say("writing users and events")
        users.fill(backup / backup_folder.USERS, user_schema.metadata, _new_epoch)
        say("writing items and vectors")
        items.fill(
            backup / backup_folder.ITEMS,
            item_schema.metadata,
            lambda connection: _skip_sequences(connection, int(lost_s * _WRITES_PER_S)),
        )
        for derived in (locations.ranking / "statistics", locations.retrieval / "snapshots"):
            shutil.rmtree(derived, ignore_errors=True)
        for name in backup_folder.KEYS:
            if (backup / name).is_file():
                _put_file(backup / name, locations.root / name)
        _copy_models(backup / backup_folder.MODELS, locations.models)
    return manifest


class _Destination:
    """Where one store goes: a new file that takes its place at the end, or the tables of a database server."""

    def __init__(self, url: str, file: Path, replace: bool, aside: Path) -> None:
        self._server_url, self._file, self._replace, self._aside = url, file, replace, aside
        self._new = file.with_name(file.name + ".restoring")
        self._url = url or sqlite_url(self._new)

    def prepare(self, open_store: Callable[[str], None], witness: sa.Table) -> None:
        """Makes the tables; refuses where there is state that must not go."""
        if not self._server_url:
            if self._file.exists() and not self._replace:
                raise StateExists(f"{self._file} exists; say --replace to put it aside, or use another folder")
            for leftover in _with_companions(self._new):
                leftover.unlink(missing_ok=True)
        open_store(self._url)
        if self._server_url and not self._replace:
            engine = open_engine(self._url)
            with reader(engine).connect() as connection:
                there = connection.execute(sa.select(witness).limit(1)).first()
            engine.dispose()
            if there is not None:
                raise StateExists(f"the database has rows in {witness.name}; say --replace to delete them")

    def fill(self, source: Path, tables: sa.MetaData, adjust: Callable[[sa.Connection], None]) -> None:
        """Copies the rows and puts the file into its place."""
        engine, backup = open_engine(self._url), open_engine(sqlite_url(source))
        try:
            with reader(backup).connect() as reading, reading.begin(), engine.begin() as writing:
                copy_tables(reading, writing, tables)
                adjust(writing)
        finally:
            backup.dispose()
            engine.dispose()
        if self._server_url:
            return
        sync(self._new)
        for old in _with_companions(self._file):
            if old.exists():
                kept = self._aside / self._file.parent.name / old.name
                kept.parent.mkdir(parents=True, exist_ok=True)
                old.rename(kept)
        self._new.rename(self._file)
        sync(self._file.parent)


def _with_companions(file: Path) -> list[Path]:
    """A SQLite file, its write-ahead log and the index of that."""
    return [file, *(file.with_name(file.name + suffix) for suffix in ("-wal", "-shm"))]


def _open_users(url: str) -> None:
    store = UserStore(url)
    store.open()
    store.close()


def _open_items(url: str) -> None:
    store = ItemStore(url)
    store.create_tables()
    store.close()


def _new_epoch(connection: sa.Connection) -> None:
    facts = user_schema.store_facts
    connection.execute(facts.update().where(facts.c.name == "epoch").values(value=secrets.token_hex(8)))


def _skip_sequences(connection: sa.Connection, count: int) -> None:
    for table in (item_schema.head, item_schema.dropped):
        connection.execute(table.update().values(seq=table.c.seq + count))


def _put_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
    sync(target)


def _copy_models(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    for model in source.iterdir():
        if not (target / model.name).exists():
            shutil.copytree(model, target / model.name)
