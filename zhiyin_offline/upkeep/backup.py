"""`write_backup`: a copy of all that cannot be made anew, taken beside services that go on serving."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa

from ranking_service.users.store.schema import SCHEMA as USERS
from ranking_service.users.store.schema import metadata as user_tables
from ranking_service.users.store.store import UserStore
from retrieval_service.item_store import ItemStore
from retrieval_service.store_schema import SCHEMA as ITEMS
from retrieval_service.store_schema import metadata as item_tables
from service_runtime.durable_files import sync
from service_runtime.errors import FailedPrecondition
from service_runtime.folder_lock import unfinished_work
from service_runtime.migrations import StoreSchema, require_newest
from service_runtime.sql import open_engine, reader, reading, sqlite_url, writing
from zhiyin_offline.upkeep import backup_folder
from zhiyin_offline.upkeep.backup_folder import BackupManifest
from zhiyin_offline.upkeep.locations import Locations
from zhiyin_offline.upkeep.stores import Store, open_store
from zhiyin_offline.upkeep.table_copy import copy_tables


def write_backup(
    locations: Locations, out_dir: Path, *, with_models: bool = True, say: Callable[[str], None] = lambda _: None
) -> BackupManifest:
    """Copies stores, token keys and models.

    Each store is copied as it was at one moment, users first: an item that an event names is in the items or was
    deleted. What is acknowledged after that moment is not inside.

    Args:
        locations: Where everything is.
        out_dir: A new folder; it appears complete or not at all.
        with_models: Whether the models are copied, which never change and can be exported again.
        say: Told what happens.

    Raises:
        FileExistsError: `out_dir` exists.
        FailedPrecondition: A store has another schema than this release's, or a restore of it was interrupted.
        StoreUnavailable: A store cannot be read, or the disk is full.
    """
    for folder in (locations.ranking, locations.retrieval):
        if unfinished := unfinished_work(folder):
            raise FailedPrecondition(f"{folder}: {unfinished}", reason="FOLDER_UNFINISHED")
    if out_dir.exists():
        raise FileExistsError(f"{out_dir} exists; name a new folder")
    staging = out_dir.with_name(f".{out_dir.name}.writing")
    shutil.rmtree(staging, ignore_errors=True)
    for name in ("ranking", "retrieval"):
        (staging / name).mkdir(parents=True)
    try:
        say("copying users and events")
        users = UserStore(sqlite_url(staging / backup_folder.USERS))
        rows = {backup_folder.USERS: _copy(locations.users, users, USERS, user_tables)}
        _close_file(staging / backup_folder.USERS)
        say("copying items and vectors")
        items = ItemStore(sqlite_url(staging / backup_folder.ITEMS))
        rows[backup_folder.ITEMS] = _copy(locations.items, items, ITEMS, item_tables)
        _close_file(staging / backup_folder.ITEMS)
        for name in backup_folder.KEYS:
            if (locations.root / name).is_file():
                shutil.copy2(locations.root / name, staging / name)
        if with_models and locations.models.is_dir():
            say("copying models")
            shutil.copytree(locations.models, staging / backup_folder.MODELS)
        files = sorted(path for path in staging.rglob("*") if path.is_file())
        manifest = BackupManifest(
            format=backup_folder.FORMAT,
            release=version("zhiyin"),
            created_at=datetime.now(UTC).isoformat(),
            rows=rows,
            files={str(path.relative_to(staging)): backup_folder.sha256(path) for path in files},
        )
        manifest.write(staging)
        staging.rename(out_dir)
        sync(out_dir.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return manifest


def _copy(source_url: str, target: Store, schema: StoreSchema, tables: sa.MetaData) -> dict[str, int]:
    source = open_engine(source_url)
    try:
        open_store(target)
        with reading(reader(source)) as rows, writing(target.engine) as copy:
            require_newest(rows, schema)
            return copy_tables(rows, copy, tables)
    finally:
        source.dispose()
        target.close()


def _close_file(file: Path) -> None:
    """Makes the store one file, which needs no write-ahead log beside it to be whole.

    Raises:
        OSError: The disk is full.
    """
    with closing(sqlite3.connect(file)) as connection:
        try:
            connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.Error as error:
            raise OSError(f"{file} could not be finished: {error}") from error
