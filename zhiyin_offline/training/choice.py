"""What shall serve: the weights of the house, one source, learned weights or the learned ranker. Cross-validation says.

Nothing is best everywhere: on few users a learned ranker loses, on ids alone equal weights do. So each contender is
judged on cases that it has not learned from, and the ranker must be better by more than its own noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranking_service.bundles.bundle import Serves
from ranking_service.scorers.features import SOURCES
from ranking_service.scorers.tree_ranker import TreeRanker
from zhiyin_offline.training.blend_table import BlendTable
from zhiyin_offline.training.differences import standard_error
from zhiyin_offline.training.examples import Example, Floats
from zhiyin_offline.training.fusion import fit_weights
from zhiyin_offline.training.ranker import ranked, train_ranker

Scores = Callable[[Example], Floats]
_FOLDS = 5
# From so many cases on a ranker of fewer folds knows as much as it can, and each of them takes a minute.
_MANY = 1_500
_FOLDS_OF_MANY, _FOLDS_TO_COMPARE = 3, 2
_K = 10
# Cases from which weights are learned where many sets of sources are compared.
_QUICK = 800
# Standard errors by which the ranker must lead: it has hundreds of parameters, all others have a few or none.
_LEAD = 1.0


@dataclass(frozen=True)
class Contender:
    """Something that could serve.

    Attributes:
        name: `builtin`, `equal`, `learned weights`, `learned ranker`, or a source alone.
        serves: How a bundle serves it.
        ndcg: NDCG@10 by case, out of fold. Shape (cases,).
        recall: Recall@10 by case likewise.
    """

    name: str
    serves: Serves
    ndcg: NDArray[np.float64]
    recall: NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """What came out.

    Attributes:
        best: What shall serve.
        weights: Of the sources, as columns of `SOURCES`.
        ranker: LightGBM's text, when `best` is a ranker.
        contenders: Everything compared, simplest first.
        ceiling: Share of the cases whose target is among the candidates at all.
    """

    best: Contender
    weights: Floats
    ranker: str | None
    contenders: tuple[Contender, ...]
    ceiling: float


def choose(
    examples: Sequence[Example], seed: int, threads: int = 1, say: Callable[[str], None] = lambda _: None
) -> Choice:
    """Compares all contenders out of fold, then fits the best to all examples."""
    table = BlendTable.of(examples)
    heard = np.any(table.opinions, axis=0)
    equal = heard.astype(np.float32)
    fixed: list[tuple[str, Serves, Scores]] = [("builtin", "builtin", lambda example: example.builtin)]
    for column in np.flatnonzero(heard):
        alone = np.eye(len(SOURCES), dtype=np.float32)[column]
        fixed.append((f"{SOURCES[column].name.lower()} alone", "blend", _blending(alone)))
    fixed.append(("equal weights", "blend", _blending(equal)))
    contenders = [Contender(name, serves, *judge(examples, scores)) for name, serves, scores in fixed]
    contenders += _out_of_fold(examples, table, seed, threads, say)
    best = contenders[0]
    for contender in contenders[1:]:
        if _leads(contender, best):
            best = contender
    weights = fit_weights(table)
    ranker = train_ranker(examples, weights, seed, threads) if best.serves == "ranker" else None
    if best.name == "equal weights":
        weights = equal
    elif best.name.endswith(" alone"):
        kind = best.name.removesuffix(" alone").upper()
        weights = np.array([source.name == kind for source in SOURCES], np.float32)
    ceiling = float(np.mean(table.targets >= 0)) if examples else 0.0
    return Choice(best, weights, ranker, tuple(contenders), ceiling)


def _out_of_fold(
    examples: Sequence[Example], table: BlendTable, seed: int, threads: int, say: Callable[[str], None]
) -> list[Contender]:
    """Learned weights and the learned ranker, each fold scored by what the other folds taught."""
    scores = np.zeros((2, 2, len(examples)))
    folds = _FOLDS if len(examples) < _MANY else _FOLDS_OF_MANY
    for number, (learned_from, held_out) in enumerate(_folds(len(examples), seed, folds)):
        weights = fit_weights(table.take(learned_from))
        held = [examples[int(i)] for i in held_out]
        scores[0][:, held_out] = judge(held, _blending(weights))
        taught = [examples[int(i)] for i in learned_from]
        scores[1][:, held_out] = judge(held, _by_trees(taught, weights, seed, threads))
        say(f"fold {number + 1} of {folds}")
    return [Contender("learned weights", "blend", *scores[0]), Contender("learned ranker", "ranker", *scores[1])]


def judge_learned_ranker(examples: Sequence[Example], seed: int, threads: int) -> NDArray[np.float64]:
    """NDCG@10 of each case by the learned ranker, each fold by what the others taught. Shape (cases,)."""
    ndcg, table = np.zeros(len(examples)), BlendTable.of(examples)
    folds = _FOLDS if len(examples) < _MANY else _FOLDS_TO_COMPARE
    for learned_from, held_out in _folds(len(examples), seed, folds):
        weights = fit_weights(table.take(learned_from))
        scores = _by_trees([examples[int(i)] for i in learned_from], weights, seed, threads)
        ndcg[held_out], _ = judge([examples[int(i)] for i in held_out], scores)
    return ndcg


def judge_learned_weights(table: BlendTable, seed: int) -> NDArray[np.float64]:
    """As `judge_learned_ranker`, by weights learned from 800 cases at most: they are few numbers, and soon found."""
    ndcg = np.zeros(len(table))
    for learned_from, held_out in _folds(len(table), seed, _FOLDS):
        ndcg[held_out] = table.take(held_out).ndcg(fit_weights(table.take(learned_from), _QUICK))
    return ndcg


def _folds(cases: int, seed: int, count: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """The cases that each fold learns from, and those that it is judged on."""
    fold = np.random.default_rng(seed).permutation(cases) % count
    for number in range(count):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def _by_trees(learned_from: Sequence[Example], weights: Floats, seed: int, threads: int) -> Scores:
    model = train_ranker(learned_from, weights, seed, threads)
    return _blending(weights) if model is None else _ranking(weights, TreeRanker(model))


def _blending(weights: Floats) -> Scores:
    return lambda example: example.blend(weights)


def _ranking(weights: Floats, trees: TreeRanker) -> Scores:
    return lambda example: ranked(example, weights, trees)


def _leads(contender: Contender, best: Contender) -> bool:
    difference = contender.ndcg - best.ndcg
    lead = _LEAD * standard_error(difference) if contender.serves == "ranker" else 0.0
    return bool(len(difference)) and float(difference.mean()) > lead


def judge(examples: Sequence[Example], scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """NDCG@10 and recall@10 of each case; equal scores count with their middle place."""
    ndcg, recall = np.zeros(len(examples)), np.zeros(len(examples))
    for i, example in enumerate(examples):
        if example.target < 0:
            continue
        ndcg[i] = gain(scores(example), example.target)
        recall[i] = float(ndcg[i] > 0)
    return ndcg, recall


def gain(scores: Floats, target: int) -> float:
    """NDCG@10 of one row in the order of the scores, equal ones at their middle place; 0 beyond the tenth."""
    own = scores[target]
    place = float(np.count_nonzero(scores > own)) + (np.count_nonzero(scores == own) - 1) / 2
    return 1.0 / float(np.log2(place + 2)) if place < _K else 0.0
