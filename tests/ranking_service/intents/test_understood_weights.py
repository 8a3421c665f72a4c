"""What probabilities of labels come to: the weights of sources, and the defaults that a request leaves open."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking_service.candidate import Pool, SourceKind
from ranking_service.intents.intent import Intent, IntentSet, Understood, understood
from ranking_service.intents.words import session_items
from ranking_service.query import Query
from ranking_service.scorers.learned import LearnedScorer
from ranking_service.scorers.scorer import BuiltinScorer, Opinions
from ranking_service.scorers.source_weights import source_weights
from ranking_service.scorers.tree_ranker import TreeRanker
from ranking_service.taste import Anchor, Taste, first_impression
from ranking_service.users.user_state import Interaction, UserState
from service_runtime.label_sets import Label, LabelSet
from zhiyin.common.v1.item_pb2 import Item

POPULAR, FRESH, HISTORY = SourceKind.POPULAR, SourceKind.FRESH, SourceKind.HISTORY
NOW = 1e9


def intents(threshold: float = 0.5, **each: Intent) -> IntentSet:
    return IntentSet(LabelSet(tuple(Label(name, (name,), (), threshold) for name in each)), each)


SET = intents(hot=Intent({POPULAR: 3.0, HISTORY: 0.0}), new=Intent({FRESH: 5.0}, diversity=0.9), else_=Intent())


@given(st.lists(st.floats(0.001, 1), min_size=3, max_size=3), st.floats(0, 1), st.floats(0.01, 1))
def test_the_factor_of_a_source_is_the_mean_over_labels_and_unknown(
    raw: list[float], share: float, threshold: float
) -> None:
    named = intents(threshold, **SET.intents)
    p = dict(zip(named.intents, (value / sum(raw) for value in raw), strict=True))
    found = understood(named, p, share)
    active = {label: share * value for label, value in p.items() if value >= threshold}
    assert dict(found.labels) == pytest.approx(active)
    assert [value for _, value in found.labels] == sorted(active.values(), reverse=True)
    for kind in SourceKind:
        wanted = 1 - sum(active.values())
        wanted += sum(value * named.intents[label].factors.get(kind, 1.0) for label, value in active.items())
        assert found.factors.get(kind, 1.0) == pytest.approx(wanted, abs=1e-6)


def test_below_its_threshold_a_label_moves_nothing() -> None:
    assert understood(SET, {"hot": 0.49, "new": 0.31, "else_": 0.2}) == Understood()
    assert not understood(SET, {"hot": 0.1, "new": 0.1, "else_": 0.8}).factors


def test_an_old_search_moves_less() -> None:
    fresh, old = (understood(SET, {"hot": 1.0, "new": 0.0, "else_": 0.0}, share) for share in (1.0, 0.25))
    assert fresh.factors == {POPULAR: 3.0, HISTORY: 0.0}
    assert old.factors == {POPULAR: 1.5, HISTORY: 0.75}


def test_a_request_that_sets_diversity_keeps_it() -> None:
    found = understood(SET, {"hot": 0.0, "new": 0.5, "else_": 0.5})
    left_open = Query("default", left_open=frozenset({"diversity", "exploration"}))
    assert found.asked(left_open).diversity == pytest.approx(0.3 + 0.5 * 0.6)
    assert found.asked(left_open).exploration == 0.0
    assert found.asked(Query("default", diversity=0.1)).diversity == 0.1


# ---- in a score


def taste(moved: Understood) -> Taste:
    return Taste(Query("default", "u", now=NOW), UserState("u"), (Anchor("liked", 1.0, 4, NOW),), understood=moved)


def pool() -> Pool:
    vectors = np.zeros((3, 2), np.float32)
    ids = ["liked-like", "popular", "new"]
    return Pool(ids, [Item(id=i) for i in ids], vectors, vectors.astype(np.float16), {}, {})


OPINIONS = Opinions(
    {kind: np.eye(3, dtype=np.float32)[row] for row, kind in enumerate((HISTORY, POPULAR, FRESH))},
    dict.fromkeys((HISTORY, POPULAR, FRESH), 0.01),
    np.zeros(3, np.float32),
)


class Upside:
    """A ranker that turns every list over."""

    def score(self, rows: np.ndarray) -> np.ndarray:
        return np.arange(len(rows), dtype=np.float32)


LEARNED = {HISTORY: 1.0, POPULAR: 0.0}
SCORERS = {
    "house": BuiltinScorer(source_weights),
    "learned weights": LearnedScorer(LEARNED, None, 3),
    "learned ranker": LearnedScorer(LEARNED, cast(TreeRanker, Upside()), 3),
}


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize(
    ("factors", "first"), [({HISTORY: 0.0, POPULAR: 10.0}, "popular"), ({HISTORY: 0.0, FRESH: 10.0}, "new")]
)
def test_whatever_scores_the_list_a_clear_intent_shows(name: str, factors: dict[SourceKind, float], first: str) -> None:
    total = SCORERS[name].score(taste(Understood((("x", 1.0),), factors)), pool(), OPINIONS).total
    assert pool().ids[int(np.argmax(total))] == first


@pytest.mark.parametrize("name", SCORERS)
def test_a_label_that_moves_nothing_changes_no_score(name: str) -> None:
    scores = [
        SCORERS[name].score(taste(moved), pool(), OPINIONS).total
        for moved in (Understood(), Understood((("else", 0.9),)))
    ]
    assert np.array_equal(*scores)


@given(st.floats(0, 10), st.floats(0, 5), st.floats(0, 5))
def test_weights_move_steadily_and_never_below_zero(factor: float, weight: float, house: float) -> None:
    def moved(by: float) -> float:
        return Understood(factors={POPULAR: by}).weights({POPULAR: weight}, {POPULAR: house})[POPULAR]

    assert moved(factor) >= -1e-9
    assert moved(factor) <= moved(factor + 0.5) + 1e-9
    assert moved(1.0) == pytest.approx(weight)
    if weight >= house:
        assert moved(factor) == pytest.approx(weight * factor)


# ---- which words


def acted(item: str, ago: float, session: str = "", strength: float = 1.0) -> Interaction:
    return Interaction(item, 4, strength, NOW - ago, session_id=session)


@pytest.mark.parametrize(
    ("recent", "items"),
    [
        ([], []),
        ([acted("a", 1700), acted("b", 10)], ["b", "a"]),
        ([acted("a", 1900), acted("b", 10)], ["b"]),
        ([acted("a", 1900)], []),
        ([acted("a", 5000, "s"), acted("x", 20, "other"), acted("b", 10, "s")], ["b", "a"]),
        ([acted("a", 5000, "s"), acted("b", 2000, "s")], []),
        ([acted("a", 20, strength=-1), acted("b", 10, strength=0), acted("c", 5)], ["c"]),
        ([acted("a", 20), acted("a", 10)], ["a"]),
        ([acted(str(n), 100 - n) for n in range(9)], ["8", "7", "6", "5", "4"]),
    ],
)
def test_the_present_session_is_what_was_acted_on_together(recent: list[Interaction], items: list[str]) -> None:
    state = UserState("u", recent=tuple(recent))
    assert session_items(first_impression(Query("default", "u", now=NOW), state)) == items
