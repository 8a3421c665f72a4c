"""Reads JSON Lines, CSV and Parquet as rows, one after another, with the place of each row.

A row that cannot be read is yielded with its fault instead of being skipped, so that the import can report it.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from zhiyin_offline.rows.attribute_values import LIST_SEPARATOR, attributes_from_cells
from zhiyin_offline.rows.row_errors import BadRow, ImportFailed

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
_PACKED = (".gz", ".zst")
_CONTEXT = "context."
_LIST_COLUMNS = ("categories", "follows")
_MAX_CELL_CHARACTERS = 4 * 1024 * 1024


@dataclass(frozen=True)
class SourceRow:
    """One row: its fields, or why it could not be read."""

    line: int
    """Where the row starts in its file, from 1; for Parquet the number of the row."""
    file: str
    """The file's name."""
    fields: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None


class RowSource:
    """The rows of a file, of all files of a folder by their names, or of standard input (`-`, JSON Lines)."""

    def __init__(self, path: str) -> None:
        self.is_stdin = path == "-"
        self.name = "standard input" if self.is_stdin else Path(path).name
        self._files: list[Path] = [] if self.is_stdin else _data_files(Path(path))
        self._raw: IO[bytes] | None = None
        self._bytes_before = 0

    @property
    def total_bytes(self) -> int | None:
        """Bytes on disk; unknown for standard input."""
        return None if self.is_stdin else sum(file.stat().st_size for file in self._files)

    @property
    def position(self) -> int:
        """Bytes read so far, as they are on disk."""
        return self._bytes_before + (self._raw.tell() if self._raw and not self._raw.closed else 0)

    def digest(self) -> str:
        """SHA-256 over the names and contents of all files: two equal digests are the same import."""
        total = hashlib.sha256()
        for file in self._files:
            with file.open("rb") as stream:
                total.update(f"{file.name}:{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
        return total.hexdigest()

    def __iter__(self) -> Iterator[SourceRow]:
        if self.is_stdin:
            yield from _json_rows(sys.stdin.buffer, "-")
            return
        for file in self._files:
            try:
                with file.open("rb") as raw:
                    self._raw = raw
                    yield from _file_rows(file, raw)
            except ImportFailed:
                raise
            except Exception as exc:  # each packing and Parquet has errors of its own for a file that is damaged
                raise ImportFailed(f"{file} cannot be read to its end: {exc}") from exc
            self._bytes_before += file.stat().st_size


def _data_files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and _format_of(file))
        if not files:
            raise ImportFailed(f"{path} holds no file ending in {', '.join(_SUFFIXES)}")
        return files
    if not path.is_file():
        raise ImportFailed(f"there is no file {path}")
    if not _format_of(path):
        raise ImportFailed(f"{path}: expected a name ending in {', '.join(_SUFFIXES)}, packed or not with .gz or .zst")
    return [path]


def _format_of(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in _SUFFIXES else None


def _file_rows(path: Path, raw: IO[bytes]) -> Iterator[SourceRow]:
    kind = _format_of(path)
    if kind == ".parquet":
        return _parquet_rows(raw, path.name)
    stream = _unpacked(path, raw)
    return _csv_rows(stream, path.name) if kind == ".csv" else _json_rows(stream, path.name)


def _unpacked(path: Path, raw: IO[bytes]) -> Iterable[bytes]:
    if path.suffix == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if path.suffix == ".zst":
        try:
            import zstandard
        except ImportError as exc:
            raise ImportFailed("reading .zst files needs the package zstandard: pip install zstandard") from exc
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw))
    return raw


def _json_rows(stream: Iterable[bytes], file: str) -> Iterator[SourceRow]:
    for line, data in enumerate(stream, start=1):
        data = data.removeprefix(b"\xef\xbb\xbf") if line == 1 else data
        if not data.strip():
            continue
        try:
            fields = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
        except UnicodeDecodeError as exc:
            yield SourceRow(line, file, fault=f"broken UTF-8 at byte {exc.start} of the line")
        except (ValueError, RecursionError) as exc:
            yield SourceRow(line, file, fault=f"not JSON: {exc}")
        else:
            if isinstance(fields, dict):
                yield SourceRow(line, file, fields)
            else:
                yield SourceRow(line, file, fault="expected a JSON object in each line")


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _csv_rows(stream: Iterable[bytes], file: str) -> Iterator[SourceRow]:
    # Bytes that are no UTF-8 become lone surrogates, so that the broken row is found and the rows around it are still
    # read.
    csv.field_size_limit(_MAX_CELL_CHARACTERS)
    reader = csv.reader((data.decode("utf-8", "surrogateescape") for data in stream), strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            yield SourceRow(line, file, fault=f"not CSV: {exc}")
            continue
        if not cells:
            continue
        if header is None:
            header = [name.strip().removeprefix("\ufeff") for name in cells]
            if twice := sorted({name for name in header if header.count(name) > 1}):
                raise ImportFailed(f"{file} has two columns of the name {', '.join(twice)}")
            continue
        yield _csv_row(line, file, header, cells)


def _csv_row(line: int, file: str, header: list[str], cells: list[str]) -> SourceRow:
    if any("\udc80" <= character <= "\udcff" for cell in cells for character in cell):
        return SourceRow(line, file, fault="broken UTF-8")
    if len(cells) != len(header):
        return SourceRow(line, file, fault=f"expected {len(header)} cells as in the header, got {len(cells)}")
    try:
        return SourceRow(line, file, _flat_fields(dict(zip(header, cells, strict=True))))
    except BadRow as exc:
        return SourceRow(line, file, fault=str(exc))


def _flat_fields(columns: dict[str, str]) -> dict[str, Any]:
    """Folds flat columns back into a row: lists split, `attributes.*` and `context.*` gathered, empty cells dropped."""
    fields: dict[str, Any] = {}
    attributes: dict[str, str] = {}
    for name, cell in columns.items():
        if name.startswith("attributes."):
            attributes[name.removeprefix("attributes.")] = cell
        elif name.startswith(_CONTEXT):
            if cell != "":
                fields.setdefault("context", {})[name.removeprefix(_CONTEXT)] = cell
        elif name in _LIST_COLUMNS:
            fields[name] = [part for part in cell.split(LIST_SEPARATOR) if part]
        elif cell != "":
            fields[name] = cell
    if attributes:
        fields["attributes"] = attributes_from_cells(attributes)
    return fields


def _parquet_rows(raw: IO[bytes], file: str) -> Iterator[SourceRow]:
    try:
        import pyarrow.parquet
    except ImportError as exc:
        raise ImportFailed("reading Parquet needs the extra `parquet`: pip install 'zhiyin[parquet]'") from exc
    number = 0
    for batch in pyarrow.parquet.ParquetFile(raw).iter_batches(batch_size=1024):
        for columns in batch.to_pylist(maps_as_pydicts="strict"):
            number += 1
            yield SourceRow(number, file, _parquet_fields(columns))


def _parquet_fields(columns: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in columns.items() if value is not None}
    fields = {name: value for name, value in given.items() if not name.startswith(("attributes.", _CONTEXT))}
    context = {name.removeprefix(_CONTEXT): value for name, value in given.items() if name.startswith(_CONTEXT)}
    # A column of structs has all of its fields in every row.
    context |= {name: value for name, value in dict(fields.pop("context", {})).items() if value is not None}
    if context:
        fields["context"] = context
    attributes = dict(fields.get("attributes") or {})
    attributes |= {
        name.removeprefix("attributes."): value for name, value in columns.items() if name.startswith("attributes.")
    }
    if attributes:
        fields["attributes"] = {name: value for name, value in attributes.items() if value is not None}
    return fields
