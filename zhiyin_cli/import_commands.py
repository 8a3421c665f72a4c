"""`zhiyin items import`, `zhiyin users import`, `zhiyin events import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from zhiyin_cli import options
from zhiyin_cli.connection import DEFAULT_RANKING, DEFAULT_RETRIEVAL
from zhiyin_cli.import_files import EVENTS, ITEMS, USERS, ImportKind, ImportOptions, run_import
from zhiyin_cli.terminal import err, out, readable_failures
from zhiyin_client.bulk.batches import BatchLimits

items_app = typer.Typer(help="Items of a catalogue.", no_args_is_help=True)
users_app = typer.Typer(help="Users.", no_args_is_help=True)
events_app = typer.Typer(help="Events: what users did.", no_args_is_help=True)


_File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A .jsonl, .csv or .parquet file (text also as .gz or .zst), a folder of such files, or - for JSON Lines "
        "on standard input.",
    ),
]
_Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted import of the same file stopped.")]
_BatchRows = Annotated[int, typer.Option("--batch-rows", min=1, help="Rows in a batch, at most what the server takes.")]
_InFlight = Annotated[int, typer.Option("--in-flight", min=1, max=64, help="Batches on their way at once.")]
_StateDir = Annotated[
    Path, typer.Option("--state-dir", envvar="ZHIYIN_STATE_DIR", help="Folder for checkpoints and rejected rows.")
]
_Rejects = Annotated[
    Path | None, typer.Option("--rejects", help="File for rejected rows instead of one in the state folder.")
]


def _import_command(kind: ImportKind, file: str, chosen: ImportOptions) -> None:
    with readable_failures(chosen.address):
        try:
            summary, rejects_file = run_import(kind, file, chosen)
        except KeyboardInterrupt:
            err.print("interrupted; go on with the same command and --resume")
            raise typer.Exit(130) from None
    known = f" ({summary.known_before:,} known before)" if summary.known_before else ""
    skipped = f", {summary.skipped:,} done by an earlier run" if summary.skipped else ""
    out.print(f"{kind.name}: {summary.accepted:,} accepted{known}, {summary.rejected:,} rejected{skipped}")
    if summary.rejected:
        for reason in summary.first_reasons:
            err.print(Text(f"  {reason}"))
        err.print(Text(f"rejected rows and reasons: {rejects_file}"))
        raise typer.Exit(1)


@items_app.command("import")
def import_items(
    ctx: typer.Context,
    file: _File,
    address: options.RetrievalAddress = DEFAULT_RETRIEVAL,
    catalog: options.Catalog = "default",
    resume: _Resume = False,
    batch_rows: _BatchRows = BatchLimits.max_rows,
    in_flight: _InFlight = BatchLimits.in_flight,
    state_dir: _StateDir = ImportOptions.state_dir,
    rejects: _Rejects = None,
) -> None:
    """Import items: id, title, text, categories, attributes, language, created_at.

    Exit code 1 when rows were rejected.
    """
    _import_command(
        ITEMS, file, ImportOptions(address, catalog, resume, batch_rows, in_flight, state_dir, rejects, ctx.obj)
    )


@users_app.command("import")
def import_users(
    ctx: typer.Context,
    file: _File,
    address: options.RankingAddress = DEFAULT_RANKING,
    catalog: options.Catalog = "default",
    resume: _Resume = False,
    batch_rows: _BatchRows = BatchLimits.max_rows,
    in_flight: _InFlight = BatchLimits.in_flight,
    state_dir: _StateDir = ImportOptions.state_dir,
    rejects: _Rejects = None,
) -> None:
    """Import users: id, profile, attributes, follows. Exit code 1 when rows were rejected."""
    _import_command(
        USERS, file, ImportOptions(address, catalog, resume, batch_rows, in_flight, state_dir, rejects, ctx.obj)
    )


@events_app.command("import")
def import_events(
    ctx: typer.Context,
    file: _File,
    address: options.RankingAddress = DEFAULT_RANKING,
    catalog: options.Catalog = "default",
    resume: _Resume = False,
    batch_rows: _BatchRows = BatchLimits.max_rows,
    in_flight: _InFlight = BatchLimits.in_flight,
    state_dir: _StateDir = ImportOptions.state_dir,
    rejects: _Rejects = None,
) -> None:
    """Import events: user_id, type, item_id, value, time, event_id, session_id, text.

    Events without event_id get one made from their content and place: importing the file again counts nothing twice.
    Exit code 1 when rows were rejected.
    """
    _import_command(
        EVENTS, file, ImportOptions(address, catalog, resume, batch_rows, in_flight, state_dir, rejects, ctx.obj)
    )
