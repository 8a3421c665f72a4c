"""An evaluation: every method on the same cases, judged alike. `evaluate` is the table of contents."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhiyin_offline.evaluation.baselines.all_baselines import MakeMethod
from zhiyin_offline.evaluation.baselines.popularity import PopularityScorer
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.interactions import query_matrix, training_matrix
from zhiyin_offline.evaluation.memory_catalog import semantic_space
from zhiyin_offline.evaluation.methods import Lists, ScoredMethod, TellsChances
from zhiyin_offline.evaluation.metrics.accuracy import CUTOFFS, accuracy
from zhiyin_offline.evaluation.metrics.groups import Groups, groups, history_buckets
from zhiyin_offline.evaluation.metrics.significance import Difference, PairedBootstrap, mean_and_error
from zhiyin_offline.evaluation.metrics.variety import Background, category_matrix, exposure, variety
from zhiyin_offline.evaluation.protocols import Case, Split

Values = NDArray[np.float64]
Say = Callable[[str], None]
COMPARED = ("recall@10", "ndcg@10", "mrr@10")
"""Metrics that verdicts are given on."""
_DEPTH = max(CUTOFFS)


class NothingToEvaluate(Exception):
    """The protocol finds no case in the data; the message says what is missing."""


@dataclass(frozen=True)
class MethodResult:
    """What one method did.

    Attributes:
        cases: Metrics by case, means over seeds; shape (cases,) each.
        exposure: Metrics of all lists together, means over seeds.
        seed_means: Means of each metric, one a seed.
        fit_s, rank_s: Seconds, means over seeds.
        chances: How good its chances are, of the first seed; empty where it tells none. See `TellsChances`.
    """

    cases: dict[str, Values]
    exposure: dict[str, float]
    seed_means: dict[str, list[float]]
    fit_s: float
    rank_s: float
    chances: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        split: What was predicted.
        users: Who each case is of, shape (cases,).
        results: By method, in the order asked for.
        groups: Members by group, shape (cases,).
        buckets: Cases by the length of the history.
        verdicts: First method against second, by metric: `verdicts[first][second][metric]`.
    """

    split: Split
    users: NDArray[np.int64]
    results: dict[str, MethodResult]
    groups: Groups
    buckets: Groups
    verdicts: dict[str, dict[str, dict[str, Difference]]]

    def mean(self, method: str, metric: str, members: NDArray[np.bool_] | None = None) -> tuple[float, float]:
        """Mean of a metric and its standard error over users, of all cases or of some."""
        values, users = self.results[method].cases[metric], self.users
        return mean_and_error(values, users) if members is None else mean_and_error(values[members], users[members])


def evaluate(
    dataset: Dataset,
    split: Split,
    methods: Mapping[str, MakeMethod],
    vectors: NDArray[np.float32],
    seeds: Sequence[int] = (0,),
    say: Say = lambda message: None,
) -> Evaluation:
    """Runs every method with every seed and compares them.

    Args:
        dataset: What happened.
        split: What to learn from and what to predict.
        methods: How to make each, by the name it gets in reports.
        vectors: Raw item vectors, shape (items, dimensions); zeros for items without words.
        seeds: Of what is random in methods, ties of scores included.
        say: Told what is done.

    Raises:
        NothingToEvaluate: There is no case.
    """
    if not split.cases:
        raise NothingToEvaluate(
            f"{split.name}: no case; leave-one-out needs users with three positive events on items of the catalogue, "
            "a time split positive events after its cut"
        )
    background = _background(dataset, split, vectors)
    results = {}
    for name, make in methods.items():
        results[name] = _run(dataset, split, make, background, seeds)
        ndcg = results[name].cases["ndcg@10"].mean()
        say(f"{name}: ndcg@10 {ndcg:.4f}, {results[name].fit_s:.1f} s to fit, {results[name].rank_s:.1f} s to rank")
    users = np.array([case.user for case in split.cases], dtype=np.int64)
    verdicts = _verdicts(results, users)
    return Evaluation(split, users, results, groups(dataset, split), history_buckets(split.cases), verdicts)


def _run(
    dataset: Dataset, split: Split, make: MakeMethod, background: Background, seeds: Sequence[int]
) -> MethodResult:
    targets = np.array([case.target for case in split.cases], dtype=np.int32)
    by_seed, shown, fit_s, rank_s = [], [], 0.0, 0.0
    chances: dict[str, Any] = {}
    for seed in seeds:
        method = make(seed)  # the last one lives until this is made: they may share what does not depend on the seed
        started = time.monotonic()
        method.fit(dataset, split)
        fitted = time.monotonic()
        lists = _checked(method.rank(split.cases, _DEPTH), split.cases, len(dataset.items))
        fit_s, rank_s = fit_s + fitted - started, rank_s + time.monotonic() - fitted
        by_seed.append(accuracy(lists, targets) | variety(lists, targets, background))
        shown.append(exposure(lists, len(dataset.items)))
        if len(by_seed) == 1 and isinstance(method, TellsChances):
            chances = method.chances()
    cases = {name: np.mean([values[name] for values in by_seed], axis=0) for name in by_seed[0]}
    return MethodResult(
        cases,
        {name: float(np.mean([values[name] for values in shown])) for name in shown[0]},
        {name: [_known_mean(values[name]) for values in by_seed] for name in cases},
        fit_s / len(seeds),
        rank_s / len(seeds),
        chances,
    )


def _checked(lists: Lists, cases: Sequence[Case], item_count: int) -> Lists:
    """A list that names an item twice would be counted as better, or more alike, than it is."""
    if lists.shape != (len(cases), _DEPTH) or lists.max(initial=-1) >= item_count:
        raise ValueError(f"lists of shape {lists.shape} for {len(cases)} cases, or items that do not exist")
    ordered = np.sort(lists, axis=1)
    if np.any((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)):
        raise ValueError("a list names an item twice")
    return lists


def _background(dataset: Dataset, split: Split, vectors: NDArray[np.float32]) -> Background:
    expected = ScoredMethod(PopularityScorer())
    expected.fit(dataset, split)
    learned = training_matrix(dataset, split.training)
    return Background(
        semantic_space(vectors, "").rows,
        category_matrix([item.categories for item in dataset.items]),
        np.asarray(learned.sum(axis=0), dtype=np.float32).ravel(),
        int(np.count_nonzero(np.diff(learned.indptr))),
        query_matrix(dataset, split.cases),
        expected.rank(split.cases, _DEPTH),
    )


def _verdicts(
    results: Mapping[str, MethodResult], users: NDArray[np.int64]
) -> dict[str, dict[str, dict[str, Difference]]]:
    """Every method against every other on the same draws of users."""
    names = list(results)
    columns = [(name, metric) for name in names for metric in COMPARED]
    bootstrap = PairedBootstrap(np.column_stack([results[n].cases[metric] for n, metric in columns]), users)
    at = {column: number for number, column in enumerate(columns)}
    verdicts: dict[str, dict[str, dict[str, Difference]]] = {name: {} for name in names}
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            found = {m: bootstrap.compare(at[first, m], at[second, m]) for m in COMPARED}
            verdicts[first][second] = found
            verdicts[second][first] = {metric: difference.reversed() for metric, difference in found.items()}
    return verdicts


def _known_mean(values: Values) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
