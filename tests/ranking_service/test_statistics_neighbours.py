"""What users alike chose, against its definition."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking_service.statistics.catalog_statistics import CatalogStatistics
from ranking_service.statistics.neighbours import NEIGHBOURS, SHRINKAGE
from ranking_service.users.event import Erasure, LogEntry
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

EVENTS = st.lists(
    st.tuples(st.integers(1, 9), st.sampled_from("abcdefg"), st.sampled_from(("like", "skip", "dislike"))), max_size=60
)
TYPES = {"like": pb2.EVENT_TYPE_SAVE, "skip": pb2.EVENT_TYPE_SKIP, "dislike": pb2.EVENT_TYPE_DISLIKE}


def folded(events: list[tuple[int, str, str]]) -> CatalogStatistics:
    statistics = CatalogStatistics(86_400.0)
    log = [
        LogEntry(number + 1, user, item, TYPES[kind], None, 1e9 + number)
        for number, (user, item, kind) in enumerate(events)
    ]
    statistics.apply(log, len(log))
    return statistics


def by_definition(events: list[tuple[int, str, str]], asked: Mapping[str, float], asking: int) -> dict[str, float]:
    pairs = {(user, item) for user, item, _ in events}
    liked = {(user, item) for user, item, kind in events if kind == "like"}
    users = len({user for user, _ in pairs})
    of_item, of_user = Counter(item for _, item in pairs), Counter(user for user, _ in pairs)
    alike: dict[int, float] = defaultdict(float)
    for user, item in liked:
        if item in asked and user != asking:
            alike[user] += asked[item] * math.log1p(users / of_item[item])
    scores: dict[str, float] = defaultdict(float)
    for user, item in liked:
        if user in alike and item not in asked:
            scores[item] += alike[user] / math.sqrt(of_user[user] + SHRINKAGE)
    return dict(scores)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.dictionaries(st.sampled_from("abcxyz"), st.floats(0.1, 1.0), min_size=1), st.integers(0, 9))
def test_as_defined(events: list[tuple[int, str, str]], asked: dict[str, float], asking: int) -> None:
    found = folded(events).liked_by_neighbours(asked, asking, 100)
    assert dict(found) == pytest.approx(by_definition(events, asked, asking))
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_only_the_most_similar_count_and_so_many_items_as_wanted() -> None:
    events = [(user, item, "like") for user in range(1, NEIGHBOURS + 1) for item in ("a", "b", "near")]
    events += [(1000 + n, item, "like") for n in range(200) for item in ("a", "far")]
    statistics = folded(events)
    assert [item for item, _ in statistics.liked_by_neighbours({"a": 1.0, "b": 1.0}, 0, 10)] == ["near"]
    assert len(folded([(1, item, "like") for item in "abcdefg"]).liked_by_neighbours({"a": 1.0}, 0, 3)) == 3


def test_who_was_erased_is_no_neighbour() -> None:
    statistics = folded([(1, "a", "like"), (1, "b", "like"), (2, "a", "like"), (2, "c", "like")])
    statistics.apply([Erasure(10, 1)], 10)
    assert [item for item, _ in statistics.liked_by_neighbours({"a": 1.0}, 0, 10)] == ["c"]


def test_events_of_this_second_count() -> None:
    statistics = folded([(1, "a", "like")])
    assert statistics.liked_by_neighbours({"a": 1.0}, 2, 10) == []
    statistics.apply([LogEntry(9, 1, "b", TYPES["like"], None, 2e9)], 9)
    assert [item for item, _ in statistics.liked_by_neighbours({"a": 1.0}, 2, 10)] == ["b"]
