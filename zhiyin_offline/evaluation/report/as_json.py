"""An evaluation as JSON: what other programs read, and what the page is drawn from."""

from __future__ import annotations

import math
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from zhiyin_offline.evaluation.evaluation import COMPARED, Evaluation
from zhiyin_offline.evaluation.metrics.significance import RESAMPLES, Difference

Figures = dict[str, dict[str, float | None]]
"""Metrics by method; None where there is nothing to tell."""


class Group(TypedDict):
    """Figures of some of the cases."""

    cases: int
    users: int
    metrics: Figures
    standard_errors: Figures


class Report(TypedDict):
    """The whole. Every mean is over cases, every standard error over users.

    Attributes:
        dataset: Name and counts.
        protocol: What was predicted, what was learned from, seeds, bootstrap.
        metrics: By method.
        standard_errors: Of the same.
        seed_standard_errors: Of the same over seeds; empty with one seed.
        verdicts: `verdicts[first][second][metric]`: the first against the second.
        incumbent: The verdict on the lists handed in; None without any.
        groups: By group.
        learning_curve: By how many events of the user were known.
        ratings: `mae` and `rmse` by predictor; empty for data without ratings.
        chances: By method that tells the chance that users act on what they are shown: how good that is `in_training`,
            out of fold, and `later`, on what was shown after the cut of a time split; empty for data without
            impressions.
        seconds: `fit` and `rank` by method.
        notes: What a reader must know, in sentences.
    """

    dataset: dict[str, Any]
    protocol: dict[str, Any]
    metrics: Figures
    standard_errors: Figures
    seed_standard_errors: Figures
    verdicts: dict[str, dict[str, dict[str, Any]]]
    incumbent: dict[str, Any] | None
    groups: dict[str, Group]
    learning_curve: dict[str, Group]
    ratings: dict[str, dict[str, float]]
    chances: dict[str, dict[str, dict[str, Any]]]
    seconds: Figures
    notes: list[str]


SUBJECT = "zhiyin"
INCUMBENT = "incumbent"
_IN_GROUPS = (*COMPARED, "diversity@10", "novelty@10", "popularity@10", "calibration_kl@10")


def report(
    evaluation: Evaluation,
    dataset: dict[str, Any],
    protocol: dict[str, Any],
    ratings: dict[str, dict[str, float]],
    notes: list[str],
) -> Report:
    """Puts all figures together.

    Args:
        evaluation: What came out.
        dataset: Name and counts of what was read.
        protocol: What was asked for; counts of cases are added.
        ratings: Errors of predicted ratings.
        notes: Sentences for the reader.
    """
    metrics, errors = _figures(evaluation, None)
    for name, result in evaluation.results.items():
        metrics[name] |= result.exposure
    split = evaluation.split
    counts = {
        "name": split.name,
        "include_history": split.include_history,
        "streaming": split.streaming,
        "cases": len(split.cases),
        "users": len(np.unique(evaluation.users)),
        "dropped_repeat_targets": split.dropped,
        "training_events": len(split.training),
        "bootstrap_resamples": RESAMPLES,
    }
    return Report(
        dataset=dataset,
        protocol=protocol | counts,
        metrics=metrics,
        standard_errors=errors,
        seed_standard_errors=_seed_errors(evaluation),
        verdicts={
            first: {second: {m: _difference(d) for m, d in found.items()} for second, found in others.items()}
            for first, others in evaluation.verdicts.items()
        },
        incumbent=_incumbent(evaluation),
        groups={name: _group(evaluation, members) for name, members in evaluation.groups.items()},
        learning_curve={name: _group(evaluation, members) for name, members in evaluation.buckets.items()},
        ratings=ratings,
        chances={name: of.chances for name, of in evaluation.results.items() if of.chances},
        seconds={name: {"fit": r.fit_s, "rank": r.rank_s} for name, r in evaluation.results.items()},
        notes=notes,
    )


def _incumbent(evaluation: Evaluation) -> dict[str, Any] | None:
    """How Zhiyin does against the lists handed in, or the best other method where Zhiyin did not run."""
    others = [name for name in evaluation.results if name != INCUMBENT]
    if INCUMBENT not in evaluation.results or not others:
        return None
    subject = SUBJECT if SUBJECT in others else max(others, key=lambda name: evaluation.mean(name, "ndcg@10")[0])
    found = evaluation.verdicts[subject][INCUMBENT]
    return {
        "method": subject,
        "verdict": found["ndcg@10"].verdict,
        "metrics": {metric: _difference(difference) for metric, difference in found.items()},
    }


def _difference(of: Difference) -> dict[str, Any]:
    return {"difference": of.difference, "interval": [of.low, of.high], "p": of.p, "verdict": of.verdict}


def _group(evaluation: Evaluation, members: NDArray[np.bool_]) -> Group:
    metrics, errors = _figures(evaluation, members, _IN_GROUPS)
    users = len(np.unique(evaluation.users[members]))
    return Group(cases=int(members.sum()), users=users, metrics=metrics, standard_errors=errors)


def _figures(
    evaluation: Evaluation, members: NDArray[np.bool_] | None, names: tuple[str, ...] = ()
) -> tuple[Figures, Figures]:
    means: Figures = {}
    errors: Figures = {}
    for method, result in evaluation.results.items():
        found = {metric: evaluation.mean(method, metric, members) for metric in names or result.cases}
        means[method] = {metric: _known(mean) for metric, (mean, _) in found.items()}
        errors[method] = {metric: _known(error) for metric, (_, error) in found.items()}
    return means, errors


def _seed_errors(evaluation: Evaluation) -> Figures:
    out: Figures = {}
    for method, result in evaluation.results.items():
        seeds = len(next(iter(result.seed_means.values())))
        if seeds > 1:
            out[method] = {
                metric: _known(float(np.std(means, ddof=1) / math.sqrt(seeds)))
                for metric, means in result.seed_means.items()
            }
    return out


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
