"""Damaged and foreign snapshots, at both services: noticed, told in log and figures, and rebuilt from the store.

Whatever happened to the files, the service becomes ready by itself and answers as one whose files are whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ranking_service.statistics.statistics_log import EventStatistics
from ranking_service.users import user_metrics
from retrieval_service.named_spaces import IndexKey
from tests.ranking_service.user_side_harness import NO_CONTEXT, Opened, assert_close, event, opened
from tests.retrieval_service.retrieval_harness import Retrieval, many_items, running_retrieval
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb

GRAPH = {"graph_min_vectors": 100, "snapshot_every_s": 0.1}
FILES = ("graph.hnsw", "matrix.npy", "numbers.npy", "mean.npy", "manifest.json")


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        await asyncio.sleep(0.02)


# ---- the index of retrieval


async def answers(running: Retrieval, catalog: str = "default") -> list[list[str]]:
    texts = ("blue song number 9", "amber film", "grey book number 77")
    return [await running.search_text(text, catalog=catalog, limit=20, exact=True) for text in texts]


async def with_snapshot(running: Retrieval, catalog: str = "default") -> None:
    """Waits for the snapshot that holds everything."""
    state = running.service._registry.get(catalog)
    await until(lambda: running.service.host._figures[IndexKey(state.row.catalog_id)].has_graph)
    await until(lambda: running.service.host._figures[IndexKey(state.row.catalog_id)].changed_since_snapshot == 0)


def only_snapshot(folder: Path, catalog_id: int = 1) -> Path:
    (path,) = (folder / "snapshots" / str(catalog_id)).glob("snapshot-*")
    return path


Whole = tuple[Path, dict[str, list[list[str]]]]
_made: list[Whole] = []


@pytest.fixture
async def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A stopped deployment with two catalogues of the same size, and what it answered. Made once."""
    if not _made:
        folder = tmp_path_factory.mktemp("whole")
        async with running_retrieval(folder, **GRAPH) as running:
            await running.stub.CreateCatalog(pb.CreateCatalogRequest(catalog=pb.Catalog(name="other")))
            await running.upsert(*many_items(150))
            await running.upsert(*many_items(150, start=1000), catalog="other")
            expected = {}
            for catalog in ("default", "other"):
                await with_snapshot(running, catalog)
                expected[catalog] = await answers(running, catalog)
        _made.append((folder, expected))
    return _made[0]


def flip(part: float) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[min(int(len(content) * part), len(content) - 1)] ^= 0x10
        file.write_bytes(content)

    return damage


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def rewritten(**fields: object) -> Callable[[Path], None]:
    """A manifest that somebody wrote with care: its checksum is right."""

    def damage(snapshot: Path) -> None:
        file = snapshot / "manifest.json"
        manifest = json.loads(file.read_text()) | fields
        manifest.pop("checksum")
        manifest["checksum"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        file.write_text(json.dumps(manifest))

    return damage


def on_every_file(damage: Callable[[Path], None]) -> list[tuple[str, Callable[[Path], None]]]:
    return [(name, lambda snapshot, name=name: damage(snapshot / name)) for name in FILES]  # type: ignore[misc]


def half_of_the_files(snapshot: Path) -> None:
    for name in FILES[::2]:
        (snapshot / name).unlink()


def swap_catalogues(snapshot: Path) -> None:
    other = only_snapshot(snapshot.parents[1].parent, 2)
    aside = snapshot.with_name("aside")
    snapshot.rename(aside)
    other.rename(snapshot)
    aside.rename(other)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    **{f"a bit at the start of {name}": (do, "") for name, do in on_every_file(flip(0.0))},
    **{f"a bit amid {name}": (do, "") for name, do in on_every_file(flip(0.6))},
    **{f"a bit at the end of {name}": (do, "") for name, do in on_every_file(flip(1.0))},
    **{f"half of {name}": (do, "") for name, do in on_every_file(truncate)},
    **{f"no {name}": (do, "") for name, do in on_every_file(Path.unlink)},
    "half of the files": (half_of_the_files, ""),
    "of other dimensions": (rewritten(dimensions=17), "17 dimensions"),
    "of another metric": (rewritten(metric="inner_product"), "inner_product"),
    "of a newer release": (rewritten(format=99), "format is 99"),
    "of another store": (rewritten(origin="1"), "another store"),
    "of the future": (rewritten(sequence=10**6), "newer than the store"),
    "of another catalogue": (swap_catalogues, "of catalogue number 2"),
    "gone": (shutil.rmtree, "no snapshot any more"),
}
# `make verify` has the others; test_space_index has each damage without a service.
SHORT = ("half of the files", "of another catalogue")


@pytest.mark.parametrize(
    "damage", [pytest.param(name, marks=() if name in SHORT else pytest.mark.long) for name in DAMAGES]
)
async def test_a_snapshot_of_the_index_that_cannot_be_used_is_told_and_replaced(
    tmp_path: Path, whole: Whole, damage: str
) -> None:
    original, expected = whole
    folder = tmp_path / "data"
    shutil.copytree(original, folder)
    spoil, told = DAMAGES[damage]
    spoil(only_snapshot(folder))
    with capture_logs() as logs:
        async with running_retrieval(folder, **GRAPH) as running:  # returns when it is ready
            assert await answers(running) == expected["default"]
            assert await answers(running, "other") == expected["other"]
            stats = await running.stats()
            assert stats.indexed_count == stats.item_count == 150
            told_in_stats = [text for text in stats.notices if "rebuilt from the store" in text]
            assert told_in_stats
            assert any(told in text for text in told_in_stats)
            assert any(line["event"] == "notice" and line["text"] in told_in_stats for line in logs)
            await with_snapshot(running)  # a new one, by itself
            assert await answers(running) == expected["default"]
    async with running_retrieval(folder, **GRAPH) as running:
        assert not (await running.stats()).notices
        assert await answers(running) == expected["default"]


async def test_an_old_snapshot_that_was_put_back_brings_no_deleted_item_back(tmp_path: Path) -> None:
    folder, kept = tmp_path / "data", tmp_path / "kept"
    items = many_items(180)
    async with running_retrieval(folder, **GRAPH) as running:
        await running.upsert(*items)
        await with_snapshot(running)
        old = only_snapshot(folder)
        shutil.copytree(old, kept)
        await running.stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=[i.id for i in items[:40]]))
        await with_snapshot(running)
        await until(lambda: marks_of_deletions(folder) == 0)  # the newer snapshot has made them superfluous
        expected = await answers(running)
    shutil.rmtree(only_snapshot(folder))
    shutil.copytree(kept, old)
    async with running_retrieval(folder, **GRAPH) as running:
        assert await answers(running) == expected
        stats = await running.stats()
        assert stats.indexed_count == 140
        assert any("not what the store holds" in text for text in stats.notices)


def marks_of_deletions(folder: Path) -> int:
    connection = sqlite3.connect(folder / "items.sqlite3")
    try:
        return int(connection.execute("SELECT count(*) FROM deletions").fetchone()[0])
    finally:
        connection.close()


# ---- the statistics of ranking

FILMS = [f"film-{i}" for i in range(9)]
NOW = 1.7e9


async def record(ranking: Opened, catalog: str, shift: int) -> None:
    for i in range(12):
        events = [
            event(f"user-{j}", "LIKE", FILMS[(i * j + shift) % 9], NOW + 60 * i + j, event_id=f"{i}/{j}")
            for j in range(1, 8)
        ]
        await ranking.rpcs.RecordEvents(ranking_pb.RecordEventsRequest(catalog=catalog, events=events), NO_CONTEXT)


def statistics_of(ranking: Opened, catalog: str) -> list[dict[str, float]]:
    told = ranking.side.statistics
    return [
        dict(told.popular(catalog, NOW, 100)),
        *(dict(told.transitions(catalog, {film: 1.0}, 100)) for film in FILMS),
    ]


def head_with(**fields: object) -> Callable[[Path], None]:
    """A head that somebody wrote with care: its checksum is right."""

    def damage(file: Path) -> None:
        line, _, body = file.read_bytes().partition(b"\n")
        head = json.loads(line) | fields
        head.pop("sha256")
        digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode() + body).hexdigest()
        file.write_bytes(json.dumps(head | {"sha256": digest}).encode() + b"\n" + body)

    return damage


def wrong_sequence(file: Path) -> None:
    """One digit of the head: the replay would begin at another place."""
    file.write_bytes(file.read_bytes().replace(b'"sequence": 84', b'"sequence": 85', 1))


def swap_files(file: Path) -> None:
    other, aside = file.with_name("2.statistics"), file.with_name("aside")
    file.rename(aside)
    other.rename(file)
    aside.rename(other)


STATISTICS: dict[str, tuple[Callable[[Path], None], str]] = {
    **{f"a bit at {part:.2f}": (flip(part), "damaged") for part in (0.0, 0.02, 0.05, 0.3, 0.6, 0.9, 1.0)},
    "another sequence": (wrong_sequence, "damaged"),
    "half of it": (truncate, "damaged"),
    "nothing": (lambda file: file.write_bytes(b""), "damaged"),
    "a folder": (lambda file: (file.unlink(), file.mkdir()), "damaged"),  # type: ignore[dict-item,return-value]
    "gone": (Path.unlink, "missing"),
    "of a newer release": (head_with(format=99), "foreign"),
    "of another store": (head_with(epoch="another"), "foreign"),
    "of another table of events": (head_with(event_types="another"), "foreign"),
    "of the future": (head_with(sequence=10**6), "foreign"),
    "of another catalogue": (swap_files, "foreign"),
}


@pytest.mark.parametrize("damage", STATISTICS)
async def test_a_snapshot_of_statistics_that_cannot_be_used_is_told_and_replaced(tmp_path: Path, damage: str) -> None:
    async with opened(tmp_path) as ranking:
        await record(ranking, "default", 0)
        await record(ranking, "films", 4)
        before = {catalog: statistics_of(ranking, catalog) for catalog in ("default", "films")}
    spoil, kind = STATISTICS[damage]
    file = tmp_path / "statistics" / "1.statistics"
    spoil(file)
    counted = user_metrics.STATISTICS_REFOLDS.labels(kind)._value.get()
    with capture_logs() as logs:
        async with opened(tmp_path) as ranking:
            for catalog, expected in before.items():
                for left, right in zip(statistics_of(ranking, catalog), expected, strict=True):
                    assert_close(left, right)
            assert ranking.side.readiness() is None
    (told,) = [
        line
        for line in logs
        if line["event"] == "statistics_folded_from_the_whole_log" and line["catalog"] == "default"
    ]
    assert (told["kind"], told["log_level"]) == (kind, "info" if kind == "missing" else "warning")
    assert user_metrics.STATISTICS_REFOLDS.labels(kind)._value.get() > counted
    if damage == "a folder":
        return  # what somebody put there is theirs to take away; the log is the truth meanwhile
    with capture_logs() as logs:
        async with opened(tmp_path) as ranking:
            assert not [line for line in logs if line["event"] == "statistics_folded_from_the_whole_log"]


async def test_a_snapshot_that_could_not_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ranking_service.statistics.statistics_log._FIRST_PAUSE_S", 0.1)
    async with opened(tmp_path, snapshot_every_events=20) as ranking:
        (tmp_path / "statistics").write_text("a file where the folder should be")
        with capture_logs() as logs:
            await record(ranking, "default", 0)
            await until(lambda: any(line["event"] == "statistics_snapshot_failed" for line in logs))
            (tmp_path / "statistics").unlink()
            await until((tmp_path / "statistics" / "1.statistics").exists)
            await until(lambda: any(line["event"] == "statistics_snapshot_written_again" for line in logs))
        monkeypatch.setattr(EventStatistics, "close", lambda self: None)  # as after a crash
    async with opened(tmp_path) as ranking:
        assert ranking.side.statistics.event_sequence("default") == 84
