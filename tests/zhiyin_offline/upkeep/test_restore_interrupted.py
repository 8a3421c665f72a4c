"""Restores that end in the middle, backups of earlier releases, stores that are damaged or wait for an upgrade."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from ranking_service.users.store.store import UserStore, add_catalog
from retrieval_service.item_store import ItemStore
from retrieval_service.snapshot_origin import snapshot_origin
from service_runtime.errors import FailedPrecondition
from service_runtime.folder_lock import FolderLock
from service_runtime.sql import writing
from zhiyin_offline.upkeep import backup_folder
from zhiyin_offline.upkeep.backup import write_backup
from zhiyin_offline.upkeep.backup_folder import BackupManifest, read_whole
from zhiyin_offline.upkeep.check import check_ranking, check_retrieval
from zhiyin_offline.upkeep.findings import Report
from zhiyin_offline.upkeep.locations import Locations
from zhiyin_offline.upkeep.restore import restore_backup

FIRST_SCHEMAS = Path(__file__).parents[2] / "durability" / "first_schemas"
STEPS = 8


class Killed(BaseException):
    """Nothing of the command's own catches it."""


def write(locations: Locations, *catalogs: str) -> None:
    """Makes catalogues in both stores."""
    for folder in (locations.ranking, locations.retrieval):
        folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(UserStore(locations.users)) as users:
        users.open()
        with writing(users.engine) as connection:
            for name in catalogs:
                add_catalog(connection, name)
    with contextlib.closing(ItemStore(locations.items)) as items:
        items.create_tables()
        with writing(items.engine) as connection:
            for name in catalogs:
                items.create_catalog(connection, name, "")


def leave_log_behind(file: Path) -> None:
    """Leaves a store as a killed service does: what was written last is in the write-ahead log only."""
    live, copy = sqlite3.connect(file), file.with_name("copy")
    live.execute("UPDATE catalogs SET name = 'in the log' WHERE name = 'old'")
    live.commit()
    log = file.with_name(file.name + "-wal")
    assert log.stat().st_size > 0
    shutil.copyfile(log, copy)
    file.with_name("whole").write_bytes(file.read_bytes())
    live.close()
    copy.rename(log)
    file.with_name("whole").rename(file)


def names(file: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM catalogs")}


def both(root: Path) -> list[set[str]]:
    return [names(file) for file in (root / "ranking" / "users.sqlite3", root / "retrieval" / "items.sqlite3")]


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backed")
    locations = Locations(folder / "data")
    write(locations, "kept")
    (locations.ranking / "token.key").write_bytes(b"the key of then")
    (locations.models / "small").mkdir(parents=True)
    (locations.models / "small" / "model.onnx").write_bytes(b"weights")
    write_backup(locations, folder / "backup")
    return folder / "backup"


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_what_a_killed_restore_leaves_is_no_state_and_loses_nothing(
    step: int, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Locations(tmp_path / "data")
    write(data, "old")
    for file in (data.user_file, data.item_file):
        leave_log_behind(file)
    (data.ranking / "token.key").write_bytes(b"the key of now")
    renames = 0
    rename = Path.rename

    def rename_until_killed(path: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames == step:
            raise Killed
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_until_killed)
        with contextlib.suppress(Killed):
            restore_backup(backup, data, replace=True)
    if step < STEPS:
        for folder in (data.ranking, data.retrieval):
            with pytest.raises(FailedPrecondition, match="run it again"):
                FolderLock(folder).take()
        with pytest.raises(FailedPrecondition, match="run it again"):
            write_backup(data, tmp_path / "of a half")

    restore_backup(backup, data, replace=True)
    for folder in (data.ranking, data.retrieval):
        FolderLock(folder).take()
    assert all("kept" in found and "in the log" not in found for found in both(data.root))
    assert (data.ranking / "token.key").read_bytes() == b"the key of then"
    assert (data.models / "small" / "model.onnx").read_bytes() == b"weights"
    for name in ("ranking/users.sqlite3", "retrieval/items.sqlite3"):
        assert any("in the log" in names(kept) for kept in data.root.glob(f"replaced-*/{name}")), name
    assert [kept.read_bytes() for kept in data.root.glob("replaced-*/ranking/token.key")] == [b"the key of now"]
    assert not list(data.root.rglob("*.restoring*"))


def test_a_refused_restore_leaves_everything_as_it_was(backup: Path, tmp_path: Path) -> None:
    data = Locations(tmp_path / "data")
    write(data, "old")
    newer = Path(shutil.copytree(backup, tmp_path / "newer"))
    with contextlib.closing(sqlite3.connect(newer / backup_folder.ITEMS)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'items_9999'")
        connection.commit()
    sign_again(newer)
    with pytest.raises(FailedPrecondition, match="a newer release has upgraded it"):
        restore_backup(newer, data, replace=True)
    FolderLock(data.ranking).take()
    assert all("old" in found for found in both(data.root))
    assert not list(data.root.rglob("*.restoring*"))


def sign_again(folder: Path) -> None:
    manifest = read_manifest(folder)
    files = {name: backup_folder.sha256(folder / name) for name in manifest.files}
    BackupManifest(manifest.format, manifest.release, manifest.created_at, manifest.rows, files).write(folder)


def read_manifest(folder: Path) -> BackupManifest:
    return BackupManifest(**json.loads((folder / backup_folder.MANIFEST).read_text()))


def test_a_restore_changes_nothing_in_the_backup_which_may_be_on_a_read_only_disk(backup: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in backup.rglob("*")}
    restore_backup(backup, Locations(tmp_path / "data"))
    assert {path: path.stat().st_mtime_ns for path in backup.rglob("*")} == before


def test_a_backup_of_an_earlier_release_is_brought_up_to_date(backup: Path, tmp_path: Path) -> None:
    earlier = Path(shutil.copytree(backup, tmp_path / "earlier"))
    for name, file in (("users", backup_folder.USERS), ("items", backup_folder.ITEMS)):
        (earlier / file).unlink()
        with contextlib.closing(sqlite3.connect(earlier / file)) as connection:
            connection.executescript((FIRST_SCHEMAS / f"{name}.sql").read_text(encoding="utf-8"))
    sign_again(earlier)
    data = Locations(tmp_path / "data")
    restore_backup(earlier, data)
    read_whole(earlier)
    report = Report()
    check_retrieval(data, report, repair=False)
    check_ranking(data, report, 86_400.0, repair=False)
    assert report.proved
    with contextlib.closing(sqlite3.connect(data.item_file)) as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone()[0] > 0


def test_stores_that_wait_for_an_upgrade_are_neither_copied_nor_checked_but_said_to_be(tmp_path: Path) -> None:
    data = Locations(tmp_path / "data")
    for name, file in (("users", data.user_file), ("items", data.item_file)):
        file.parent.mkdir(parents=True)
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.executescript((FIRST_SCHEMAS / f"{name}.sql").read_text(encoding="utf-8"))
    with pytest.raises(FailedPrecondition, match="start the service once"):
        write_backup(data, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
    with pytest.raises(FailedPrecondition, match="start the service once"):
        check_retrieval(data, Report(), repair=False)
    with pytest.raises(FailedPrecondition, match="start the service once"):
        check_ranking(data, Report(), 86_400.0, repair=False)


def test_damaged_pages_are_said_to_be_what_is_wrong(tmp_path: Path) -> None:
    data = Locations(tmp_path / "data")
    write(data, *(f"catalogue-{number}" for number in range(200)))
    for file in (data.user_file, data.item_file):
        with contextlib.closing(sqlite3.connect(file)) as connection:
            size = connection.execute("PRAGMA page_size").fetchone()[0]
            (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'catalogs'").fetchone()
        content = bytearray(file.read_bytes())
        content[(page - 1) * size : page * size] = b"\xee" * size
        file.write_bytes(content)
    report = Report()
    check_retrieval(data, report, repair=False)
    check_ranking(data, report, 86_400.0, repair=False)
    assert {finding.where for finding in report.findings} == {"item store", "user store"}
    assert not any(finding.derived for finding in report.findings)


def test_snapshots_of_the_lost_time_are_of_another_store(backup: Path, tmp_path: Path) -> None:
    def origin(locations: Locations) -> str:
        with contextlib.closing(ItemStore(locations.items)) as store, store.reading() as connection:
            (row,) = (row for row in store.catalogs(connection) if row.name == "kept")
            return snapshot_origin(store, connection, row.catalog_id)

    origins = set()
    for name in ("one", "two"):
        restore_backup(backup, Locations(tmp_path / name))
        origins.add(origin(Locations(tmp_path / name)))
    assert len(origins) == 2
