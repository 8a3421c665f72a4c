"""What is there after a restart: snapshots, the log after them, and the whole log when a snapshot is of no use."""

from __future__ import annotations

import csv
import gzip
import json
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ranking_service.statistics.statistics_log import EventStatistics
from tests.ranking_service.user_side_harness import NO_CONTEXT, Opened, assert_close, event, opened
from zhiyin.ranking.v1 import ranking_service_pb2 as pb

ITEMS = [f"film-{i}" for i in range(9)]


async def fill(ranking: Opened, rounds: int = 10) -> None:
    now = time.time()
    for i in range(rounds):
        await ranking.record(
            *(event(f"user-{i % 3}-{j}", "LIKE", ITEMS[(i * j) % 9], now - 60 + i) for j in range(1, 8)),
            event("ann", "SKIP", ITEMS[i % 9], now - i),
        )


def answers(ranking: Opened, now: float) -> list[dict[str, float]]:
    statistics = ranking.side.statistics
    given = [{item: 1.0} for item in ITEMS] + [{item: 0.6**i for i, item in enumerate(ITEMS[:4])}]
    return [
        dict(statistics.popular("default", now, 100)),
        *(dict(statistics.transitions("default", weights, 100)) for weights in given),
    ]


def assert_same(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    assert one[0]
    for left, right in zip(one, other, strict=True):
        assert_close(left, right)


def snapshot(folder: Path) -> Path:
    return folder / "statistics" / "1.statistics"


async def test_a_restart_replays_only_what_the_snapshot_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    async with opened(tmp_path) as ranking:
        await fill(ranking)
        ranking.side._statistics.save("default")
        await fill(ranking, 3)
        await ranking.delete("ann")
        await fill(ranking, 2)
        before = answers(ranking, now)
        monkeypatch.setattr(EventStatistics, "close", lambda self: None)  # as after a crash
    with capture_logs() as logs:
        async with opened(tmp_path) as ranking:
            assert_same(answers(ranking, now), before)
            assert ranking.side.statistics.event_sequence("default") == 15 * 8 + 1
    loaded = next(line for line in logs if line["event"] == "statistics_loaded")
    assert loaded["replayed"] == 16  # an erasure saves a snapshot of its own


async def test_a_snapshot_is_saved_every_so_many_events(tmp_path: Path) -> None:
    async with opened(tmp_path, snapshot_every_events=20) as ranking:
        await fill(ranking, 2)
        assert not snapshot(tmp_path).exists()
        await fill(ranking, 1)
        ranking.side._statistics._savers.submit(lambda: None).result()
        assert json.loads(snapshot(tmp_path).read_bytes().partition(b"\n")[0])["sequence"] == 24


async def test_a_snapshot_of_before_an_erasure_is_replaced_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as ranking:
        await ranking.record(event("ann", "LIKE", "only-anns-film"))
        ranking.side._statistics.save("default")
        monkeypatch.setattr(ranking.side, "_forget_bytes", lambda catalog: None)
        monkeypatch.setattr(EventStatistics, "close", lambda self: None)  # as after a crash right after the commit
        await ranking.delete("ann")
    assert json.loads(snapshot(tmp_path).read_bytes().partition(b"\n")[0])["sequence"] == 1
    async with opened(tmp_path) as ranking:
        assert json.loads(snapshot(tmp_path).read_bytes().partition(b"\n")[0])["sequence"] == 2
        assert ranking.side.statistics.popular("default", time.time(), 5) == []


async def test_a_full_disk_costs_the_snapshot_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        await fill(ranking, 1)
        (tmp_path / "statistics").write_text("a file where the folder should be")
        with capture_logs() as logs:
            ranking.side._statistics.save("default")
        assert [line["event"] for line in logs] == ["statistics_snapshot_failed"]
        await fill(ranking, 1)
        (tmp_path / "statistics").unlink()


async def test_readiness_follows_start_and_writer(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        assert ranking.side.readiness() is None
        ranking.side._writer._failure = RuntimeError("disk")
        assert "writer has failed" in (ranking.side.readiness() or "")


async def test_movielens_folds_and_gives_known_neighbours(test_data: Path, tmp_path: Path) -> None:
    with gzip.open(test_data / "movielens-small" / "ratings.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if int(row["userId"]) <= 200]
    requests = []
    for start in range(0, len(rows), 1_000):
        events = [
            event(
                r["userId"], "RATING", r["movieId"], float(r["timestamp"]), float(r["rating"]), event_id=str(start + i)
            )
            for i, r in enumerate(rows[start : start + 1_000])
        ]
        requests.append(pb.RecordEventsRequest(catalog="default", events=events))
    async with opened(tmp_path) as ranking:
        for request in requests:
            await ranking.rpcs.RecordEvents(request, NO_CONTEXT)
        assert ranking.side.statistics.event_sequence("default") == len(rows)
        # The Lord of the Rings: the two other parts are what its viewers saw next to it.
        first = ranking.side.statistics.transitions("default", {"4993": 1.0}, 10)
        assert {"5952", "7153"} <= {item for item, _ in first}
        popular = ranking.side.statistics.popular("default", float(max(r["timestamp"] for r in rows)), 20)
        assert len(popular) == 20


async def test_the_log_is_read_in_pages_with_erasures_in_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ranking_service.users.store.event_rows._ENTRIES_PER_PAGE", 4)
    async with opened(tmp_path) as ranking:
        await fill(ranking, 2)
        await ranking.delete("ann")
        await fill(ranking, 1)
        await ranking.delete("user-0-1")
        await ranking.upsert(pb.User(id="last"))
        pages = list(ranking.side._store.read_log(1, 0))
        assert len(pages) > 4
        sequences = [entry.sequence for page, _ in pages for entry in page]
        assert sequences == sorted(set(sequences))
        assert {17, 26} <= set(sequences)
        assert all(page[-1].sequence <= reached for page, reached in pages if page)
        assert pages[-1][1] == 27
        part = [entry.sequence for page, _ in ranking.side._store.read_log(1, 9, 20) for entry in page]
        assert part == [sequence for sequence in sequences if 9 < sequence <= 20]
