"""Reading the tables of public data sets and writing import files."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO


class DatasetNotFound(Exception):
    """The folder does not hold the data set; the message names the missing file."""


def open_text(folder: Path, name: str) -> TextIO:
    """Opens `name` or `name.gz` in a folder; only `\\n` ends a line. Raises DatasetNotFound."""
    plain, packed = folder / name, folder / f"{name}.gz"
    if plain.is_file():
        return plain.open(encoding="utf-8", newline="\n")
    if packed.is_file():
        return gzip.open(packed, "rt", encoding="utf-8", newline="\n")
    raise DatasetNotFound(f"{folder} holds neither {name} nor {name}.gz")


def csv_rows(folder: Path, name: str) -> Iterator[dict[str, str]]:
    """The rows of a CSV table. Stray carriage returns inside texts become spaces: csv would take them for line ends."""
    with open_text(folder, name) as stream:
        yield from csv.DictReader(line.replace("\r\n", "\n").replace("\r", " ") for line in stream)


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Writes rows as JSON Lines, whole or not at all, and returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    count = 0
    with temporary.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    temporary.replace(path)
    return count
