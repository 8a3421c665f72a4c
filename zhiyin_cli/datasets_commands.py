"""`zhiyin datasets convert`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zhiyin_cli.datasets import amazon, kuairec, movielens
from zhiyin_cli.datasets.tables import DatasetNotFound
from zhiyin_cli.terminal import CommandFailed, out, readable_failures

datasets_app = typer.Typer(help="Public data sets as import files.", no_args_is_help=True)


class Dataset(StrEnum):
    """Data sets that can be converted."""

    movielens = "movielens"
    amazon = "amazon"
    kuairec = "kuairec"


_CONVERTERS = {Dataset.movielens: movielens.convert, Dataset.amazon: amazon.convert, Dataset.kuairec: kuairec.convert}


@datasets_app.callback()
def _datasets() -> None:
    """Public data sets as import files."""


@datasets_app.command("convert")
def convert(
    dataset: Annotated[Dataset, typer.Argument(help="Which data set.")],
    source_dir: Annotated[
        Path, typer.Argument(metavar="SOURCE_DIR", help="Folder with its files, packed (.gz) or not.")
    ],
    out_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder for items.jsonl and events.jsonl.")],
) -> None:
    """Write OUT_DIR/items.jsonl and OUT_DIR/events.jsonl, every row kept."""
    with readable_failures():
        try:
            items, events = _CONVERTERS[dataset](source_dir, out_dir)
        except DatasetNotFound as exc:
            raise CommandFailed(str(exc)) from exc
        out.print(f"{out_dir}: {items:,} items, {events:,} events", markup=False)
