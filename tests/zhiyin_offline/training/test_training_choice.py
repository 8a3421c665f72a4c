"""What shall serve is what was best on cases it had not learned from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ranking_service.scorers.features import SOURCES
from ranking_service.scorers.tree_ranker import TreeRanker
from tests.zhiyin_offline.training.planted import COLUMN, planted
from zhiyin_offline.training.blend_table import BlendTable
from zhiyin_offline.training.choice import Choice, choose, judge
from zhiyin_offline.training.examples import Example
from zhiyin_offline.training.fusion import fit_weights
from zhiyin_offline.training.ranker import ranked, train_ranker

QUIET = ("query", "profile", "collaborative", "community", "neighbours", "factors", "fresh")


def worlds() -> dict[str, Callable[[int], list[Example]]]:
    return {
        "one source": lambda seed: planted(150, {"transition": 3.0}, seed, silent=QUIET),
        "equal parts": lambda seed: planted(
            150, dict.fromkeys(("history", "transition", "sequence", "popular"), 1.2), seed, silent=QUIET
        ),
        "unequal parts": lambda seed: planted(150, {"history": 0.6, "sequence": 2.4}, seed, silent=QUIET),
        "a feature": lambda seed: planted(240, {"history": 1.0}, seed, silent=QUIET, by_feature={"age_days": -12.0}),
        "nothing": lambda seed: planted(60, {}, seed, silent=QUIET),
        "few cases": lambda seed: planted(7, {"history": 1.0}, seed, silent=QUIET),
        "lost targets": lambda seed: planted(80, {"history": 2.0}, seed, silent=QUIET, misses=0.7),
    }


@pytest.fixture(scope="module")
def choices() -> dict[str, Choice]:
    return {name: choose(make(0), seed=0) for name, make in worlds().items()}


def test_a_source_that_decides_alone_serves_alone(choices: dict[str, Choice]) -> None:
    choice = choices["one source"]
    assert (choice.best.name, choice.best.serves, choice.ranker) == ("transition alone", "blend", None)
    assert np.flatnonzero(choice.weights).tolist() == [COLUMN["transition"]]


def test_learned_weights_serve_where_sources_matter_unequally(choices: dict[str, Choice]) -> None:
    choice = choices["unequal parts"]
    assert choice.best.serves == "blend"
    assert choice.weights[COLUMN["sequence"]] > 2 * choice.weights[COLUMN["history"]]


def test_equal_weights_serve_where_all_matter_alike(choices: dict[str, Choice]) -> None:
    choice = choices["equal parts"]
    assert choice.best.serves == "blend"
    assert {SOURCES[i].name.lower() for i in np.flatnonzero(choice.weights)} == {
        "history", "transition", "sequence", "popular",
    }  # fmt: skip
    assert choice.weights[choice.weights > 0].max() < 2 * choice.weights[choice.weights > 0].min()


def test_the_ranker_serves_where_something_else_than_a_source_decides(choices: dict[str, Choice]) -> None:
    choice = choices["a feature"]
    assert (choice.best.name, choice.best.serves) == ("learned ranker", "ranker")
    assert choice.ranker is not None
    unseen = worlds()["a feature"](1)
    trees = TreeRanker(choice.ranker)
    by_trees, _ = judge(unseen, lambda example: ranked(example, choice.weights, trees))
    by_weights, _ = judge(unseen, lambda example: example.blend(choice.weights))
    assert by_trees.mean() > by_weights.mean() + 0.1


@pytest.mark.parametrize("name", worlds())
def test_what_serves_is_never_below_the_best_source(choices: dict[str, Choice], name: str) -> None:
    choice = choices[name]
    alone = [c for c in choice.contenders if c.name.endswith(" alone")]
    assert len(alone) == 4
    for contender in alone:
        assert choice.best.ndcg.mean() >= contender.ndcg.mean()
    assert choice.best in choice.contenders


@pytest.mark.parametrize("name", ["one source", "unequal parts", "a feature"])
def test_what_serves_is_as_good_on_cases_nobody_looked_at(choices: dict[str, Choice], name: str) -> None:
    choice, unseen = choices[name], worlds()[name](1)
    trees = TreeRanker(choice.ranker) if choice.ranker is not None else None
    serves, _ = judge(unseen, lambda e: e.blend(choice.weights) if trees is None else ranked(e, choice.weights, trees))
    for column in range(len(SOURCES)):
        only = np.eye(len(SOURCES), dtype=np.float32)[column]
        alone, _ = judge(unseen, lambda e, only=only: e.blend(only))
        difference = serves - alone
        assert difference.mean() >= -2 * difference.std() / len(difference) ** 0.5, SOURCES[column].name


def test_no_case_is_scored_by_what_it_taught() -> None:
    """Nothing decides here. A ranker that has learned from these very cases finds most targets, by heart."""
    examples = planted(150, {}, silent=QUIET)
    choice = choose(examples, seed=0)
    luck = 10 / 40
    weights, by_heart = (
        fit_weights(BlendTable.of(examples)),
        TreeRanker(train_ranker(examples, fit_weights(BlendTable.of(examples)), 0) or ""),
    )
    assert judge(examples, lambda example: ranked(example, weights, by_heart))[1].mean() > 2 * luck
    for contender in choice.contenders:
        assert abs(contender.recall.mean() - luck) < 0.12, contender.name


def test_the_share_of_targets_among_the_candidates_is_told(choices: dict[str, Choice]) -> None:
    assert choices["one source"].ceiling == 1.0
    assert choices["lost targets"].ceiling == pytest.approx(0.3, abs=0.12)
    for contender in choices["lost targets"].contenders:
        assert contender.recall.mean() <= choices["lost targets"].ceiling


def test_the_same_seed_chooses_the_same() -> None:
    examples = worlds()["a feature"](0)[:60]
    one, other = choose(examples, seed=3), choose(examples, seed=3)
    assert (one.best.name, one.ranker) == (other.best.name, other.ranker)
    assert np.array_equal(one.weights, other.weights)
    for mine, theirs in zip(one.contenders, other.contenders, strict=True):
        assert np.array_equal(mine.ndcg, theirs.ndcg)


def test_equal_scores_count_with_their_middle_place() -> None:
    (example,) = planted(1, {})
    constant = np.zeros(40, np.float32)
    ndcg, recall = judge([example], lambda _: constant)
    assert (ndcg[0], recall[0]) == (0.0, 0.0)  # the 20th of 40 equals, not the first
    first = np.zeros(40, np.float32)
    first[example.target] = 1
    assert judge([example], lambda _: first)[0][0] == 1.0
