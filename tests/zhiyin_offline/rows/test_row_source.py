"""Reading JSON Lines, CSV and Parquet, broken rows included."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard

from zhiyin_offline.rows.row_errors import ImportFailed
from zhiyin_offline.rows.row_source import RowSource


def test_json_lines_with_broken_rows_in_between(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_bytes(
        b'\xef\xbb\xbf{"id": "a"}\n\n{"id": \n{"id": "\xff\xfe"}\n[1]\n{"id": "b", "x": NaN}\n{"id": "\xe4\xb8\xad"}'
    )
    rows = list(RowSource(str(file)))
    assert [(row.line, row.fields.get("id")) for row in rows if row.fault is None] == [(1, "a"), (7, "中")]
    faults = {row.line: row.fault or "" for row in rows if row.fault}
    assert sorted(faults) == [3, 4, 5, 6]
    assert "not JSON" in faults[3]
    assert "broken UTF-8 at byte 8" in faults[4]
    assert "object" in faults[5]
    assert "NaN" in faults[6]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_packed_files_read_like_plain_ones(tmp_path: Path, suffix: str) -> None:
    content = "".join(json.dumps({"id": str(number)}) + "\n" for number in range(1000)).encode()
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    file = tmp_path / f"items.jsonl{suffix}"
    file.write_bytes(pack(content))
    source = RowSource(str(file))
    assert [row.fields["id"] for row in source] == [str(number) for number in range(1000)]
    assert source.position == source.total_bytes == file.stat().st_size


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.jsonl.gz", gzip.compress(b'{"id":"a"}\n' * 100, mtime=0)[:-20]),
        ("no.jsonl.gz", b"no gzip"),
        ("no.jsonl.zst", b"no zstd"),
        ("no.parquet", b"no parquet"),
    ],
    ids=("cut gzip", "no gzip", "no zstd", "no parquet"),
)
def test_a_damaged_file_ends_the_import_with_its_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImportFailed, match=name):
        list(RowSource(str(tmp_path / name)))


def test_a_csv_column_that_stands_twice_is_refused_rather_than_lost(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,title,title\n1,a,b\n")
    with pytest.raises(ImportFailed, match="title"):
        list(RowSource(str(tmp_path / "items.csv")))


def test_csv_columns_become_lists_and_typed_attributes(tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text(
        "id,title,categories,attributes.price,attributes.isbn:string,attributes.tags:list,attributes.new,attributes.day:time\n"
        'a,"two\nlines",books|poetry,12.5,0012,one,true,2026-01-02T03:04:05Z\n'
        "b,plain,,,,,,\n",
        encoding="utf-8",
    )
    first, second = RowSource(str(file))
    assert first.fields == {
        "id": "a",
        "title": "two\nlines",
        "categories": ["books", "poetry"],
        "attributes": {
            "price": 12.5,
            "isbn": "0012",
            "tags": ["one"],
            "new": True,
            "day": {"time": "2026-01-02T03:04:05Z"},
        },
    }
    assert (first.line, second.line) == (2, 4)
    assert second.fields == {"id": "b", "title": "plain", "categories": [], "attributes": {}}


def test_csv_rows_that_cannot_be_read_are_told_apart_from_their_neighbours(tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_bytes(b"id,title,attributes.price:number\na,fine,1\nb,too few\nc,\xff\xfe,1\nd,words,cheap\ne,fine,2\n")
    rows = list(RowSource(str(file)))
    assert [row.fields["id"] for row in rows if row.fault is None] == ["a", "e"]
    assert {row.line: row.fault for row in rows if row.fault} == {
        3: "expected 3 cells as in the header, got 2",
        4: "broken UTF-8",
        5: "attributes.price: expected a finite number, got 'cheap'",
    }


def test_parquet_keeps_types(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table(
        {
            "id": ["a", "b"],
            "categories": [["books", "poetry"], None],
            "created_at": [datetime(2026, 1, 2, tzinfo=UTC), None],
            "attributes.price": [1.5, None],
            "attributes": [{"brand": "x"}, {"brand": None}],
        }
    )
    parquet.write_table(table, tmp_path / "items.parquet")
    first, second = RowSource(str(tmp_path / "items.parquet"))
    assert first.fields["attributes"] == {"brand": "x", "price": 1.5}
    assert first.fields["categories"] == ["books", "poetry"]
    assert first.fields["created_at"] == datetime(2026, 1, 2, tzinfo=UTC)
    assert second.fields == {"id": "b"} | {"attributes": {}}


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"id": "2"}\n')
    (tmp_path / "a.csv").write_text("id\n1\n")
    (tmp_path / "README.md").write_text("not data")
    source = RowSource(str(tmp_path))
    assert [(row.file, row.line, row.fields["id"]) for row in source] == [("a.csv", 2, "1"), ("b.jsonl", 1, "2")]
    assert source.position == source.total_bytes


@pytest.mark.parametrize("name", ["missing.jsonl", "items.xlsx"])
def test_what_is_no_data_file_is_said_clearly(tmp_path: Path, name: str) -> None:
    (tmp_path / "items.xlsx").write_text("x")
    with pytest.raises(ImportFailed, match=name):
        RowSource(str(tmp_path / name))


def test_equal_files_have_equal_digests(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "1"}\n')
    before = RowSource(str(tmp_path / "a.jsonl")).digest()
    assert RowSource(str(tmp_path / "a.jsonl")).digest() == before
    (tmp_path / "a.jsonl").write_text('{"id": "2"}\n')
    assert RowSource(str(tmp_path / "a.jsonl")).digest() != before


def test_circumstances_of_events_come_from_flat_columns_and_from_structs(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    (tmp_path / "a.csv").write_text("user_id,context.device,context.place\nu,tv,\nv,,\n")
    structs = [{"device": "tv", "place": None}, None]
    parquet.write_table(pyarrow.table({"user_id": ["u", "v"], "context": structs}), tmp_path / "b.parquet")
    flat = pyarrow.table({"user_id": ["u", "v"], "context.device": ["tv", None]})
    parquet.write_table(flat, tmp_path / "c.parquet")
    for name in ("a.csv", "b.parquet", "c.parquet"):
        first, second = RowSource(str(tmp_path / name))
        assert first.fields == {"user_id": "u", "context": {"device": "tv"}}, name
        assert second.fields == {"user_id": "v"}, name
