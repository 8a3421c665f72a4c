"""The event-type table: complete, within its bounds, as the contract says it, and the same in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking_service.users.event_types import RULES, markdown_table, strength
from zhiyin.ranking.v1 import ranking_service_pb2 as pb

ROOT = Path(__file__).parents[2]


def test_the_documentation_shows_the_table() -> None:
    assert markdown_table() in (ROOT / "docs" / "events.md").read_text()


def test_every_type_has_a_row() -> None:
    assert set(RULES) == set(pb.EventType.values()) - {pb.EVENT_TYPE_UNSPECIFIED}


@given(st.sampled_from(sorted(RULES)), st.none() | st.floats(allow_nan=False))
def test_strengths_lie_between_minus_one_and_one(event_type: int, value: float | None) -> None:
    assert -1.0 <= strength(event_type, value) <= 1.0


@pytest.mark.parametrize(("low", "high"), [(0.5, 5.0)])
def test_a_better_rating_never_counts_less(low: float, high: float) -> None:
    ratings = [low + step * (high - low) / 90 for step in range(91)]
    strengths = [strength(pb.EVENT_TYPE_RATING, rating) for rating in ratings]
    assert strengths == sorted(strengths)
    for rating, amount in zip(ratings, strengths, strict=True):
        assert (amount > 0) == (rating >= 3.5), rating
        assert (amount < 0) == (rating < 2.5), rating


def test_a_longer_view_never_counts_less_and_a_finish_counts_most() -> None:
    views = [strength(pb.EVENT_TYPE_VIEW, share / 100) for share in range(101)]
    assert views == sorted(views)
    assert views[0] == 0
    assert views[-1] < strength(pb.EVENT_TYPE_FINISH, None)


def test_what_is_hidden_is_also_seen_and_counts_against_the_item() -> None:
    for rule in RULES.values():
        if rule.hides:
            assert rule.marks_seen(None)
            assert rule.strength(None) < 0
