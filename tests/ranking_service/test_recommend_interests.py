"""Grouping a history into interests, and reading a user's events as likes and dislikes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking_service.interests import find_interests
from ranking_service.query import Anonymous, Query
from ranking_service.taste import first_impression
from ranking_service.users.user_state import Interaction, UserState

NOW = 1_800_000_000.0
LIKE, SEARCH, SKIP = 5, 12, 13


def state(*interactions: Interaction, **fields) -> UserState:
    return UserState("u", True, recent=interactions, **fields)


def test_two_topics_are_two_interests_the_heavier_first() -> None:
    vectors = np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 0, 1], [0.95, 0, 0.05]], dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    interests = find_interests(vectors, [1.0, 0.5, 0.8, 0.2], at_most=4)
    assert [set(interest.members) for interest in interests] == [{0, 1, 3}, {2}]
    assert interests[0].members[0] == 0
    assert interests[0].weight + interests[1].weight == 1.0


@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 40),
    unknown=st.integers(0, 5),
    at_most=st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_interests_never_share_items_and_lose_none_but_for_the_bound(
    seed: int, n: int, unknown: int, at_most: int
) -> None:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((n, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[: min(unknown, n)] = 0
    weights = random.uniform(0.1, 1, n).tolist()
    everything = find_interests(vectors, weights, at_most=n + 1)
    members = [row for interest in everything for row in interest.members]
    assert sorted(members) == list(range(n))
    assert abs(sum(interest.weight for interest in everything) - 1) < 1e-6
    few = find_interests(vectors, weights, at_most)
    assert few == everything[:at_most]


def test_later_and_stronger_interactions_weigh_more() -> None:
    taste = first_impression(
        Query("default", "u", now=NOW),
        state(
            Interaction("old", LIKE, 1.0, NOW - 90 * 86_400),
            Interaction("new", LIKE, 1.0, NOW - 60),
        ),
    )
    assert [anchor.item_id for anchor in taste.likes] == ["new", "old"]
    assert taste.likes[0].weight > 3 * taste.likes[1].weight


def test_a_later_dislike_outweighs_an_earlier_like() -> None:
    taste = first_impression(
        Query("default", "u", now=NOW),
        state(Interaction("x", LIKE, 1.0, NOW - 100), Interaction("x", SKIP, -2.0, NOW - 50)),
    )
    assert not taste.likes
    assert [anchor.item_id for anchor in taste.dislikes] == ["x"]


def test_impressions_say_nothing() -> None:
    taste = first_impression(Query("default", "u", now=NOW), state(Interaction("x", 1, 0.0, NOW)))
    assert not taste.likes
    assert not taste.dislikes


def test_a_recent_search_counts_until_the_request_has_a_text_or_a_day_has_passed() -> None:
    searched = Interaction("", SEARCH, 0.0, NOW - 3600, text="running shoes")
    assert first_impression(Query("default", "u", now=NOW), state(searched)).search_text == "running shoes"
    assert first_impression(Query("default", "u", text="tents", now=NOW), state(searched)).search_text == ""
    assert first_impression(Query("default", "u", now=NOW + 86_400), state(searched)).search_text == ""


def test_a_comment_is_no_search() -> None:
    comment = Interaction("film-1", 11, 1.0, NOW - 5, text="so good")
    assert first_impression(Query("default", "u", now=NOW), state(comment)).search_text == ""


def test_the_last_of_an_anonymous_history_weighs_most() -> None:
    query = Query("default", anonymous=Anonymous("", ("a", "b", "a", "c")), now=NOW)
    assert [anchor.item_id for anchor in first_impression(query, UserState("")).likes] == ["c", "a", "b"]
