"""`restore_backup`: brings a backup back as the state of services that are stopped.

    new files, whole, beside the present ones  ->  folders marked  ->  put into their places  ->  marks removed

A service does not start on a marked folder, so a restore that was killed half-way leaves nothing that could be taken
for a state: neither the users of one time with the items of another, nor an empty store.

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
from retrieval_service.snapshot_origin import RESTORED
from service_runtime.durable_files import make_folder, sync
from service_runtime.folder_lock import FolderLock
from zhiyin_offline.upkeep import backup_folder
from zhiyin_offline.upkeep.backup_folder import BackupManifest, read_whole
from zhiyin_offline.upkeep.locations import Locations
from zhiyin_offline.upkeep.restored_store import RestoredStore

# Writes that a catalogue can have had in a second of the lost time; measured are below a thousand.
_WRITES_PER_S = 100_000


def restore_backup(
    backup: Path, locations: Locations, *, replace: bool = False, say: Callable[[str], None] = lambda _: None
) -> BackupManifest:
    """Writes a backup's stores, keys and models where the services look for them.

    Args:
        backup: A folder that `write_backup` of this release or an earlier one made.
        locations: Where everything goes.
        replace: Puts what is there aside (files) or deletes it (rows of a database server) instead of refusing.
        say: Told what happens.

    Raises:
        BackupDamaged: It is not whole; nothing was touched.
        FailedPrecondition: A service runs on the state, or the backup is of a newer release; nothing was touched.
        StateExists: There is state already, and `replace` is not given; nothing was touched.
        StoreUnavailable: A database does not answer, or a disk is full.
    """
    say("reading the backup")
    manifest = read_whole(backup)
    lost_s = max((datetime.now(UTC) - datetime.fromisoformat(manifest.created_at)).total_seconds(), 0.0) + 1.0
    with ExitStack() as stack:
        locks = [FolderLock(folder) for folder in (locations.ranking, locations.retrieval)]
        for lock in locks:
            lock.take(finish=True)
            stack.callback(lock.release)
        aside = _free_name(locations.root / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        users = RestoredStore(UserStore, locations.user_store_url, locations.user_file, user_schema.metadata)
        items = RestoredStore(ItemStore, locations.item_store_url, locations.item_file, item_schema.metadata)
        for store, witness in ((users, user_schema.users), (items, item_schema.items)):
            stack.callback(store.close)
            store.open(witness, replace=replace)
        say("writing users and events")
        users.prepare(backup / backup_folder.USERS, _new_epoch)
        say("writing items and vectors")
        items.prepare(
            backup / backup_folder.ITEMS,
            lambda connection: _leave_lost_time(connection, int(lost_s * _WRITES_PER_S)),
        )
        for lock in locks:
            lock.mark(f"a restore was interrupted (what was there before is in {aside}): run it again with --replace")
        for derived in (locations.ranking / "statistics", locations.retrieval / "snapshots"):
            shutil.rmtree(derived, ignore_errors=True)
        users.put(aside)
        items.put(aside)
        for name in backup_folder.KEYS:
            if (backup / name).is_file():
                _put_key(backup / name, locations.root / name, aside / name)
        _copy_models(backup / backup_folder.MODELS, locations.models)
        for lock in locks:
            lock.unmark()
    return manifest


def _free_name(folder: Path) -> Path:
    """A restore that follows an interrupted one at once must not write over what that one put aside."""
    number, name = 1, folder
    while name.exists():
        number += 1
        name = folder.with_name(f"{folder.name}-{number}")
    return name


def _new_epoch(connection: sa.Connection) -> None:
    facts = user_schema.store_facts
    connection.execute(facts.update().where(facts.c.name == "epoch").values(value=secrets.token_hex(8)))


def _leave_lost_time(connection: sa.Connection, count: int) -> None:
    for table in (item_schema.head, item_schema.dropped):
        connection.execute(table.update().values(seq=table.c.seq + count))
    facts = item_schema.store_facts
    connection.execute(facts.delete().where(facts.c.name == RESTORED))
    connection.execute(facts.insert().values(name=RESTORED, value=secrets.token_hex(8)))


def _put_key(source: Path, target: Path, kept: Path) -> None:
    if target.exists() and target.read_bytes() != source.read_bytes():
        make_folder(kept.parent)
        target.rename(kept)
    new = target.with_name(target.name + ".restoring")
    shutil.copy2(source, new)
    sync(new)
    new.rename(target)
    sync(target.parent)


def _copy_models(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    make_folder(target)
    for model in source.iterdir():
        if (target / model.name).exists():
            continue
        new = target / f".{model.name}.restoring"
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(model, new)
        for path in (*new.rglob("*"), new):
            sync(path)
        new.rename(target / model.name)
    sync(target)
