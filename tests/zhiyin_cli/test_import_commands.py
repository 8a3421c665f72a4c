"""`zhiyin items|users|events import` as a person uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from zhiyin_cli.main import app


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def _write_items(count: int, bad: tuple[int, ...] = ()) -> Path:
    path = Path("items.jsonl")
    rows = [{"id": f"i{number}", "title": "bad" if number in bad else f"title {number}"} for number in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _rejects() -> list[dict[str, object]]:
    (file,) = Path(".zhiyin/imports").glob("*.rejects.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_all_rows_arrive(services: Any, address: str) -> None:
    result = _run("items", "import", str(_write_items(95)), "--retrieval-address", address)
    assert result.exit_code == 0, result.output
    assert "items: 95 accepted, 0 rejected" in result.output
    assert len(services.items) == 95


def test_no_batch_is_larger_than_the_server_takes(services: Any, address: str) -> None:
    path = Path("items.jsonl")
    rows = [{"id": f"i{number}", "title": f"title {number}", "text": "x" * 9_000} for number in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = _run("items", "import", str(path), "--retrieval-address", address)
    assert "items: 30 accepted, 0 rejected" in result.output
    assert 0 < services.largest_message <= services.max_message_bytes


def test_rejected_rows_are_reported_with_line_and_reason_and_the_exit_code_says_so(services: Any, address: str) -> None:
    path = _write_items(40, bad=(3, 17))
    with path.open("ab") as stream:
        stream.write(b'{"id": "broken", "title": "\xff"}\n{"id": "huge", "title": "' + b"x" * 70_000 + b'"}\n')
    result = _run("items", "import", str(path), "--retrieval-address", address)
    assert result.exit_code == 1
    assert "items: 38 accepted, 4 rejected" in result.output
    assert "items.jsonl:4: title: is bad" in result.output
    assert sorted((reject["line"], reject["reason"].split(",")[0]) for reject in _rejects()) == [  # type: ignore[attr-defined]
        (4, "title: is bad"),
        (18, "title: is bad"),
        (41, "broken UTF-8 at byte 27 of the line"),
        (42, "70"),
    ]
    assert len(services.items) == 38


def test_an_import_that_stopped_goes_on_where_it_was(services: Any, address: str) -> None:
    path = _write_items(100, bad=(5,))
    services.refuse_after_items = 60
    command = ["items", "import", str(path), "--retrieval-address", address, "--in-flight", "1"]
    stopped = _run(*command)
    assert stopped.exit_code == 1
    assert "SPACE_MISMATCH" in stopped.output
    services.refuse_after_items = None
    sent_before = len(services.sent_item_ids)

    resumed = _run(*command, "--resume")

    assert resumed.exit_code == 1, resumed.output  # row 6 was rejected, and the summary does not forget it
    assert "1 rejected" in resumed.output
    assert "done by an earlier run" in resumed.output
    assert len(services.items) == 99
    assert len(services.sent_item_ids) - sent_before <= 45
    assert [reject["line"] for reject in _rejects()] == [6]
    assert not list(Path(".zhiyin/imports").glob("*.checkpoint.json"))


def test_resume_starts_anew_when_the_file_has_changed(services: Any, address: str) -> None:
    services.refuse_after_items = 20
    command = ["items", "import", "items.jsonl", "--retrieval-address", address]
    _write_items(50)
    assert _run(*command).exit_code == 1
    services.refuse_after_items = None
    services.items.clear()
    _write_items(51)
    assert _run(*command, "--resume").exit_code == 0
    assert len(services.items) == 51


def test_overload_and_a_broken_connection_are_waited_out(services: Any, address: str) -> None:
    services.overloads_left = 5
    services.break_stream_after_batches = 3
    result = _run("items", "import", str(_write_items(95)), "--retrieval-address", address)
    assert result.exit_code == 0, result.output
    assert len(services.items) == 95


def test_events_imported_twice_count_once(services: Any, address: str) -> None:
    rows = [{"user_id": "u", "item_id": f"i{number % 3}", "type": "click"} for number in range(25)]
    Path("events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for expected in ("25 accepted, 0 rejected", "25 accepted (25 known before), 0 rejected"):
        result = _run("events", "import", "events.jsonl", "--ranking-address", address)
        assert f"events: {expected}" in result.output
    assert len(services.events) == 25


def test_users_go_through_even_beside_a_bad_one(services: Any, address: str) -> None:
    rows = [{"id": f"u{number}", "profile": "bad" if number == 4 else "喜欢旅游"} for number in range(25)]
    Path("users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = _run("users", "import", "users.jsonl", "--ranking-address", address)
    assert result.exit_code == 1
    assert "users: 24 accepted, 1 rejected" in result.output
    assert set(services.users) == {f"u{number}" for number in range(25)} - {"u4"}


def test_standard_input(services: Any, address: str) -> None:
    result = _run("items", "import", "-", "--retrieval-address", address, stdin=_write_items(12).read_bytes())
    assert result.exit_code == 0, result.output
    assert len(services.items) == 12


def test_no_server_and_no_file_are_said_clearly() -> None:
    path = _write_items(1)
    result = _run("items", "import", str(path), "--retrieval-address", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "is `zhiyin up` running" in result.output
    missing = _run("items", "import", "nothing.jsonl")
    assert missing.exit_code == 1
    assert "there is no file nothing.jsonl" in missing.output
