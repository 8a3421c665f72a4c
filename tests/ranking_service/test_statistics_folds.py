"""Popularity and transitions are functions of the log: held against their definitions, in any order."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking_service.statistics import statistics_snapshot
from ranking_service.statistics.catalog_statistics import CatalogStatistics
from ranking_service.statistics.statistics_snapshot import SnapshotUnusable
from ranking_service.users.event import Erasure, LogEntry
from ranking_service.users.event_types import RULES, Repeat
from tests.ranking_service.user_side_harness import HALF_LIFE_S, assert_close, assert_equal_folds, folded
from zhiyin.ranking.v1 import ranking_service_pb2 as pb

NOW = 1.8e9
ITEMS = "abcdefg"
VALUES = {pb.EVENT_TYPE_RATING: [0.5, 2.0, 3.0, 4.0, 5.0], pb.EVENT_TYPE_VIEW: [0.0, 0.05, 0.5, 1.0]}


@st.composite
def logs(draw: st.DrawFn, max_size: int = 60) -> list[LogEntry]:
    entries = []
    for sequence in range(1, draw(st.integers(0, max_size)) + 1):
        kind = draw(st.sampled_from(sorted(RULES)))
        value = draw(st.sampled_from(VALUES[kind])) if kind in VALUES else None
        item = "" if kind == pb.EVENT_TYPE_SEARCH else draw(st.sampled_from(ITEMS))
        # Few different times, so that ties happen; and moments far from ours.
        time = draw(st.sampled_from([-6e10, 0.0, 1.5e9]) | st.integers(1, 8).map(lambda k: NOW - k * 86_400.0))
        entries.append(LogEntry(sequence, draw(st.integers(1, 5)), item, kind, value, time))
    return entries


def popularity_by_definition(log: Sequence[LogEntry], now: float) -> dict[str, float]:
    acts: dict[tuple[str, int], float] = defaultdict(float)
    opinions: dict[tuple[str, int], tuple[float, int, float]] = {}
    last: dict[tuple[str, int], float] = defaultdict(lambda: -math.inf)
    for entry in log:
        rule = RULES[entry.event_type]
        strength = rule.strength(entry.value)
        pair = (entry.item_id, entry.user_key)
        if not entry.item_id or (strength == 0 and rule.repeat is not Repeat.REPLACES):
            continue
        last[pair] = max(last[pair], entry.time)
        if rule.repeat is Repeat.REPLACES:
            opinions[pair] = max(opinions.get(pair, (-math.inf, 0, 0.0)), (entry.time, entry.sequence, strength))
        else:
            acts[pair] += strength * 2 ** (-(now - entry.time) / HALF_LIFE_S)
    total: dict[str, float] = defaultdict(float)
    for pair, time in last.items():
        bound = 2.0 * 2 ** (-(now - time) / HALF_LIFE_S)
        weight = acts.get(pair, 0.0)
        if pair in opinions:
            weight += opinions[pair][2] * 2 ** (-(now - opinions[pair][0]) / HALF_LIFE_S)
        total[pair[0]] += min(max(weight, -bound), bound)
    return total


def transitions_by_definition(log: Sequence[LogEntry], source: str) -> dict[str, float]:
    latest: dict[int, dict[str, tuple[float, int]]] = defaultdict(dict)
    for entry in log:
        if entry.item_id and RULES[entry.event_type].strength(entry.value) > 0:
            mine = latest[entry.user_key]
            mine[entry.item_id] = max(mine.get(entry.item_id, (-math.inf, 0)), (entry.time, entry.sequence))
    rates: dict[str, float] = defaultdict(float)
    users: Counter[str] = Counter()
    for mine in latest.values():
        order = sorted(mine, key=lambda item: mine[item])
        if source not in order:
            continue
        at = order.index(source)
        for place, item in enumerate(order):
            gap = abs(place - at)
            if 0 < gap < 50:
                rates[item] += gap**-0.5 * (1.0 if place > at else 0.3)
                users[item] += 1
    best = max(rates.values(), default=0.0)
    return {item: rate / best * users[item] / (users[item] + 5) for item, rate in rates.items()}


@settings(max_examples=60, deadline=None)
@given(logs())
def test_the_folds_are_what_they_are_defined_to_be(log: list[LogEntry]) -> None:
    statistics = folded(log)
    expected = {k: v for k, v in popularity_by_definition(log, NOW).items() if v > 1e-9}
    assert_close({k: v for k, v in statistics.popular(NOW, 100) if v > 1e-9}, expected)
    for source in ITEMS:
        assert_close(dict(statistics.following({source: 1.0}, 100)), transitions_by_definition(log, source))


@settings(max_examples=40, deadline=None)
@given(logs(), st.randoms(use_true_random=False))
def test_any_order_gives_the_same(log: list[LogEntry], random: object) -> None:
    shuffled = list(log)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert_equal_folds(folded(log), folded(shuffled), ITEMS, NOW)


@settings(max_examples=40, deadline=None)
@given(logs(), logs(20), st.integers(1, 5))
def test_an_erased_user_was_never_there(before: list[LogEntry], after: list[LogEntry], user: int) -> None:
    erasure = Erasure(len(before) + 1, user)
    later = [
        entry._replace(
            sequence=entry.sequence + erasure.sequence, user_key=entry.user_key + 5 * (entry.user_key == user)
        )
        for entry in after
    ]
    live = folded([*before, erasure, *later])
    without = folded([*(entry for entry in before if entry.user_key != user), *later])
    assert_equal_folds(live, without, ITEMS, NOW)


@settings(max_examples=25, deadline=None)
@given(log=logs(), after=logs(20))
def test_a_snapshot_goes_on_like_the_state_it_was_taken_of(
    tmp_path_factory: pytest.TempPathFactory, log: list[LogEntry], after: list[LogEntry]
) -> None:
    path = tmp_path_factory.mktemp("snapshots") / "1.statistics"
    live = folded(log)
    statistics_snapshot.save(path, live, "epoch")
    restored = statistics_snapshot.load(path, "epoch", HALF_LIFE_S)
    assert restored.sequence == live.sequence
    assert_equal_folds(live, restored, ITEMS, NOW)
    more: list[LogEntry | Erasure] = [entry._replace(sequence=entry.sequence + len(log)) for entry in after]
    more.append(Erasure(len(log) + len(after) + 1, 1))
    for statistics in (live, restored):
        statistics.apply(more, more[-1].sequence)
    assert_equal_folds(live, restored, ITEMS, NOW)


def test_transitions_are_best_first_and_leave_the_given_items_out() -> None:
    log = [
        LogEntry(number, user, item, pb.EVENT_TYPE_LIKE, None, NOW - 1_000 + number)
        for number, (user, item) in enumerate(
            [(1, "a"), (1, "b"), (1, "c"), (2, "a"), (2, "b"), (3, "c"), (3, "a")], start=1
        )
    ]
    statistics = folded(log)
    ranked = statistics.following({"a": 1.0}, 10)
    assert [item for item, _ in ranked] == ["b", "c"]
    assert statistics.following({"a": 1.0}, 1) == ranked[:1]
    assert [item for item, _ in statistics.following({"a": 1.0, "b": 0.6}, 10)] == ["c"]
    assert statistics.following({"never seen": 1.0}, 10) == []
    assert statistics.following({}, 10) == []


def test_only_the_window_counts() -> None:
    log = [LogEntry(n, 1, f"item-{n}", pb.EVENT_TYPE_LIKE, None, float(n)) for n in range(1, 121)]
    followers = {item for item, _ in folded(log).following({"item-60": 1.0}, 1_000)}
    assert followers == {f"item-{n}" for n in range(11, 110)} - {"item-60"}


def test_a_popular_item_is_judged_by_its_latest_users() -> None:
    statistics = CatalogStatistics(HALF_LIFE_S)
    log = []
    for user in range(1, 1_001):
        follower = "old" if user <= 700 else "new"
        for item in ("hit", follower):
            log.append(LogEntry(len(log) + 1, user, item, pb.EVENT_TYPE_LIKE, None, NOW + len(log)))
    statistics.apply(log, len(log))
    scores = dict(statistics.following({"hit": 1.0}, 10))
    assert set(scores) == {"new"}
    assert scores["new"] == pytest.approx(256 / (256 + 5))


def test_what_one_user_did_next_is_an_anecdote() -> None:
    def sessions(users: range, follower: str) -> list[tuple[int, str]]:
        return [(user, item) for user in users for item in ("start", follower)]

    pairs = [*sessions(range(1, 2), "whim"), *sessions(range(2, 32), "custom")]
    log = [LogEntry(n, user, item, pb.EVENT_TYPE_LIKE, None, NOW + n) for n, (user, item) in enumerate(pairs, start=1)]
    alone, many = folded(log[:2]), folded(log)
    assert dict(alone.following({"start": 1.0}, 9))["whim"] == pytest.approx(1 / 6)
    scores = dict(many.following({"start": 1.0}, 9))
    assert scores["custom"] == pytest.approx(30 / 35)
    assert scores["whim"] == pytest.approx(1 / 30 / 6)


def test_a_user_counts_once_however_many_of_the_given_items_led_to_the_next() -> None:
    log = [LogEntry(n, 1, item, pb.EVENT_TYPE_LIKE, None, NOW + n) for n, item in enumerate("abcd", start=1)]
    assert folded(log).following({"a": 1.0, "b": 1.0, "c": 1.0}, 9) == [("d", pytest.approx(1 / 6))]


def test_one_user_cannot_push_an_item_up_without_limit() -> None:
    log = [LogEntry(n, 1, "spam", pb.EVENT_TYPE_PURCHASE, None, NOW) for n in range(1, 500)]
    log += [LogEntry(500 + n, 10 + n, "honest", pb.EVENT_TYPE_PURCHASE, None, NOW) for n in range(3)]
    assert folded(log).popular(NOW, 2) == [("honest", pytest.approx(3.0)), ("spam", pytest.approx(2.0))]


def test_only_the_latest_opinion_counts() -> None:
    def opinion(sequence: int, value: float, at: float) -> LogEntry:
        return LogEntry(sequence, 1, "a", pb.EVENT_TYPE_RATING, value, at)

    changed_mind = folded([opinion(1, 5.0, NOW - 20), opinion(2, 0.5, NOW - 10)])
    assert changed_mind.popular(NOW, 1) == []
    told_late = folded([opinion(1, 0.5, NOW - 10), opinion(2, 5.0, NOW)])
    assert told_late.popular(NOW, 1) == [("a", pytest.approx(1.0))]
    neutral = folded([opinion(1, 5.0, NOW - 20), opinion(2, 3.0, NOW - 10)])
    assert neutral.popular(NOW, 1) == []


def test_impressions_and_neutral_views_say_nothing_and_dislikes_count_down() -> None:
    log = [
        LogEntry(1, 1, "shown", pb.EVENT_TYPE_IMPRESSION, None, NOW),
        LogEntry(2, 1, "glanced at", pb.EVENT_TYPE_VIEW, 0.05, NOW),
        LogEntry(3, 1, "mixed", pb.EVENT_TYPE_PURCHASE, None, NOW),
        LogEntry(4, 2, "mixed", pb.EVENT_TYPE_DISLIKE, None, NOW),
        LogEntry(5, 1, "liked", pb.EVENT_TYPE_LIKE, None, NOW),
    ]
    assert folded(log).popular(NOW, 9) == [("liked", pytest.approx(0.8))]


def test_popularity_halves_in_a_half_life_and_keeps_its_order_for_ages() -> None:
    log = [
        LogEntry(1, 1, "a", pb.EVENT_TYPE_PURCHASE, None, NOW),
        LogEntry(2, 1, "b", pb.EVENT_TYPE_LIKE, None, NOW),
    ]
    statistics = folded(log)
    assert dict(statistics.popular(NOW + HALF_LIFE_S, 2)) == pytest.approx({"a": 0.5, "b": 0.4})
    for now in (-6e10, NOW + 100 * HALF_LIFE_S, 2.5e11):
        ranked = statistics.popular(now, 2)
        assert [item for item, _ in ranked] == ["a", "b"]
        assert all(math.isfinite(amount) for _, amount in ranked)


def test_a_short_half_life_over_decades_neither_overflows_nor_forgets_the_order() -> None:
    statistics = CatalogStatistics(3_600.0)
    log = [LogEntry(n, n, f"item-{n}", pb.EVENT_TYPE_LIKE, None, 1e9 + n * 1e6) for n in range(1, 800)]
    statistics.apply(log, len(log))
    ranked = statistics.popular(log[-1].time, 3)
    assert [item for item, _ in ranked] == ["item-799"]
    assert ranked[0][1] == pytest.approx(0.8)


@pytest.mark.parametrize("damage", ["flip", "cut", "head", "empty"])
def test_a_damaged_snapshot_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "1.statistics"
    statistics_snapshot.save(path, folded([LogEntry(1, 1, "a", pb.EVENT_TYPE_LIKE, None, NOW)]), "epoch")
    whole = path.read_bytes()
    damaged = {
        "flip": whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:],
        "cut": whole[:-10],
        "head": b"x" + whole,
        "empty": b"",
    }[damage]
    path.write_bytes(damaged)
    with pytest.raises(SnapshotUnusable):
        statistics_snapshot.load(path, "epoch", HALF_LIFE_S)


def test_a_snapshot_of_another_store_or_setting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "1.statistics"
    statistics_snapshot.save(path, folded([]), "epoch")
    with pytest.raises(SnapshotUnusable, match="epoch"):
        statistics_snapshot.load(path, "another", HALF_LIFE_S)
    with pytest.raises(SnapshotUnusable, match="half_life"):
        statistics_snapshot.load(path, "epoch", 1.0)
