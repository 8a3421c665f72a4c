"""`zhiyin check`, `zhiyin backup`, `zhiyin restore`.

The database and index libraries are imported by the commands themselves: all other commands start without them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from service_runtime.errors import FailedPrecondition, ZhiyinError
from service_runtime.folder_lock import FolderLock
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc
from zhiyin_cli import options
from zhiyin_cli.connection import DEFAULT_RETRIEVAL, connect
from zhiyin_cli.terminal import CommandFailed, err, out, readable_failures

if TYPE_CHECKING:
    from zhiyin_offline.upkeep.backup_folder import BackupManifest
    from zhiyin_offline.upkeep.locations import Locations

_DAY_S = 86_400.0
_DataDir = Annotated[Path, typer.Option("--data-dir", help="The folder given to `zhiyin up`.")]
_ItemStoreUrl = Annotated[
    str,
    typer.Option(
        "--item-store-url", envvar="ZHIYIN_RETRIEVAL_STORE_URL", help="Retrieval's database, where it is no file."
    ),
]
_UserStoreUrl = Annotated[
    str,
    typer.Option(
        "--user-store-url", envvar="ZHIYIN_RANKING_STORE_URL", help="Ranking's database, where it is no file."
    ),
]


def check(
    ctx: typer.Context,
    data_dir: _DataDir,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make derived things anew that differ. The services must be stopped.")
    ] = False,
    item_store_url: _ItemStoreUrl = "",
    user_store_url: _UserStoreUrl = "",
    half_life_days: Annotated[
        float,
        typer.Option(
            "--popularity-half-life-days",
            envvar="ZHIYIN_RANKING_POPULARITY_HALF_LIFE_DAYS",
            help="As the ranking service is set.",
        ),
    ] = 30.0,
    address: options.RetrievalAddress = DEFAULT_RETRIEVAL,
) -> None:
    """Prove that stores, indexes and statistics agree. Beside running services, or on stopped ones.

    A retrieval service that runs on the folder is asked for its index too. Exit code 1: something does not agree.
    """
    from zhiyin_offline.upkeep.check import check_ranking, check_retrieval
    from zhiyin_offline.upkeep.findings import Report

    locations = _existing(data_dir, item_store_url, user_store_url)
    report = Report()
    with readable_failures(address), _readable_refusals(), ExitStack() as stack:
        running = _running(locations, stack)
        if running and repair:
            raise CommandFailed(f"{' and '.join(running)} run on {data_dir}; stop them before repairing")
        live = None
        if "retrieval" in running:
            live = retrieval_grpc.RetrievalServiceStub(stack.enter_context(connect(address, ctx.obj)))
        check_retrieval(locations, report, repair=repair, live=live)
        check_ranking(locations, report, half_life_days * _DAY_S, repair=repair)
    for line in report.proved:
        out.print(f"[green]ok[/green]  {line}")
    for line in report.not_compared:
        out.print(f"[yellow]not compared[/yellow]  {line}")
    for finding in report.findings:
        done = "repaired" if finding.repaired else "REPAIRABLE: --repair" if finding.derived else "DAMAGED"
        out.print(f"[red]{done}[/red]  {finding.where}: {finding.what}")
    if any(not finding.derived for finding in report.findings):
        err.print("What is damaged cannot be made anew from anything: restore a backup.")
    if not report.healthy:
        raise typer.Exit(1)


def backup(
    out_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="A new folder for the backup.")],
    data_dir: _DataDir,
    models: Annotated[bool, typer.Option("--models/--no-models", help="Copy the exported models as well.")] = True,
    item_store_url: _ItemStoreUrl = "",
    user_store_url: _UserStoreUrl = "",
) -> None:
    """Copy all state while the services go on serving: users, events, items, vectors, token keys, models."""
    from zhiyin_offline.upkeep.backup import write_backup

    locations = _existing(data_dir, item_store_url, user_store_url)
    with readable_failures(), _readable_refusals("no backup was written: "):
        _quietly()
        manifest = write_backup(locations, out_dir, with_models=models, say=err.print)
    out.print(f"wrote {out_dir}: {_contents(manifest)}", markup=False)


def restore(
    backup_dir: Annotated[Path, typer.Argument(metavar="BACKUP", help="A folder that `zhiyin backup` wrote.")],
    data_dir: _DataDir,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the present state aside (DIR/replaced-TIME) instead of refusing.")
    ] = False,
    item_store_url: _ItemStoreUrl = "",
    user_store_url: _UserStoreUrl = "",
) -> None:
    """Bring a backup back for services that are stopped, in files or, by the URLs, in a database server."""
    from zhiyin_offline.upkeep.backup_folder import BackupDamaged
    from zhiyin_offline.upkeep.restore import restore_backup
    from zhiyin_offline.upkeep.restored_store import StateExists

    locations = _locations(data_dir, item_store_url, user_store_url)
    with readable_failures(), _readable_refusals():
        _quietly()
        try:
            manifest = restore_backup(backup_dir, locations, replace=replace, say=err.print)
        except (BackupDamaged, StateExists) as error:
            raise CommandFailed(str(error)) from error
    out.print(f"restored the state of {manifest.created_at}: {_contents(manifest)}", markup=False)


def _quietly() -> None:
    """Leaves out what the stores tell their services' logs, but for warnings."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


@contextmanager
def _readable_refusals(intro: str = "") -> Iterator[None]:
    """What a store or a disk refuses is an everyday fault, and shown without a traceback."""
    try:
        yield
    except (ZhiyinError, OSError) as error:
        raise CommandFailed(f"{intro}{error}") from error


def _locations(data_dir: Path, item_store_url: str, user_store_url: str) -> Locations:
    from service_runtime.sql import check_url
    from zhiyin_offline.upkeep.locations import Locations

    for option, url in (("--item-store-url", item_store_url), ("--user-store-url", user_store_url)):
        try:
            if url:
                check_url(url)
        except ValueError as error:
            raise typer.BadParameter(f"{option} {error}") from None
    return Locations(data_dir, item_store_url, user_store_url)


def _existing(data_dir: Path, item_store_url: str, user_store_url: str) -> Locations:
    locations = _locations(data_dir, item_store_url, user_store_url)
    files = [
        file for file, url in ((locations.item_file, item_store_url), (locations.user_file, user_store_url)) if not url
    ]
    for file in files:
        if not file.is_file():
            raise typer.BadParameter(f"{file} does not exist; name the folder given to `zhiyin up`")
    return locations


def _running(locations: Locations, stack: ExitStack) -> list[str]:
    """The services that run on the folders; the locks of the others are held until `stack` ends."""
    running = []
    for name, folder in (("retrieval", locations.retrieval), ("ranking", locations.ranking)):
        lock = FolderLock(folder)
        try:
            lock.take()
        except FailedPrecondition as error:
            if error.reason != "FOLDER_IN_USE":
                raise
            running.append(name)
        else:
            stack.callback(lock.release)
    return running


def _contents(manifest: BackupManifest) -> str:
    users, items = (manifest.rows[name] for name in sorted(manifest.rows))
    return f"{users['users']} users, {users['events']} events, {items['items']} items"
