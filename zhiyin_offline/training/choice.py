"""What shall serve: the weights of the house, one source, learned weights or the learned ranker. Cross-validation says.

Nothing is best everywhere: on few users a learned ranker loses, on ids alone equal weights do. So each contender is
judged on cases that it has not learned from, and the ranker must be better by more than its own noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranking_service.bundles.bundle import Serves
from ranking_service.scorers.features import SOURCES
from ranking_service.scorers.tree_ranker import TreeRanker
from zhiyin_offline.training.examples import Example, Floats
from zhiyin_offline.training.fusion import fit_weights
from zhiyin_offline.training.ranker import ranked, train_ranker

Scores = Callable[[Example], Floats]
_FOLDS = 5
_K = 10
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
    heard = np.array([any(example.opinions[:, column].any() for example in examples) for column in range(len(SOURCES))])
    equal = heard.astype(np.float32)
    fixed: list[tuple[str, Serves, Scores]] = [("builtin", "builtin", lambda example: example.builtin)]
    for column in np.flatnonzero(heard):
        alone = np.eye(len(SOURCES), dtype=np.float32)[column]
        fixed.append((f"{SOURCES[column].name.lower()} alone", "blend", _blending(alone)))
    fixed.append(("equal weights", "blend", _blending(equal)))
    contenders = [Contender(name, serves, *judge(examples, scores)) for name, serves, scores in fixed]
    contenders += _out_of_fold(examples, seed, threads, say)
    best = contenders[0]
    for contender in contenders[1:]:
        if _leads(contender, best):
            best = contender
    weights = fit_weights(examples)
    ranker = train_ranker(examples, weights, seed, threads) if best.serves == "ranker" else None
    if best.name == "equal weights":
        weights = equal
    elif best.name.endswith(" alone"):
        kind = best.name.removesuffix(" alone").upper()
        weights = np.array([source.name == kind for source in SOURCES], np.float32)
    ceiling = float(np.mean([example.target >= 0 for example in examples])) if examples else 0.0
    return Choice(best, weights, ranker, tuple(contenders), ceiling)


def _out_of_fold(examples: Sequence[Example], seed: int, threads: int, say: Callable[[str], None]) -> list[Contender]:
    """Learned weights and the learned ranker, each fold scored by what the other folds taught."""
    fold = _folds(examples, seed)
    scores: dict[str, NDArray[np.float64]] = {
        name: np.zeros((2, len(examples))) for name in ("learned weights", "learned ranker")
    }
    for number in range(_FOLDS):
        learned_from = [example for example, of in zip(examples, fold, strict=True) if of != number]
        held_out = np.flatnonzero(fold == number)
        weights = fit_weights(learned_from)
        model = train_ranker(learned_from, weights, seed, threads)
        trees = TreeRanker(model) if model is not None else None
        held = [examples[int(i)] for i in held_out]
        scores["learned weights"][:, held_out] = judge(held, _blending(weights))
        by_trees = _blending(weights) if trees is None else _ranking(weights, trees)
        scores["learned ranker"][:, held_out] = judge(held, by_trees)
        say(f"fold {number + 1} of {_FOLDS}")
    return [
        Contender("learned weights", "blend", *scores["learned weights"]),
        Contender("learned ranker", "ranker", *scores["learned ranker"]),
    ]


def judge_learned_weights(examples: Sequence[Example], seed: int) -> NDArray[np.float64]:
    """NDCG@10 of each case by learned weights, each fold by what the others taught. Shape (cases,)."""
    fold, ndcg = _folds(examples, seed), np.zeros(len(examples))
    for number in range(_FOLDS):
        weights = fit_weights([example for example, of in zip(examples, fold, strict=True) if of != number])
        held_out = np.flatnonzero(fold == number)
        ndcg[held_out], _ = judge([examples[int(i)] for i in held_out], _blending(weights))
    return ndcg


def _folds(examples: Sequence[Example], seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(len(examples)) % _FOLDS


def _blending(weights: Floats) -> Scores:
    return lambda example: example.blend(weights)


def _ranking(weights: Floats, trees: TreeRanker) -> Scores:
    return lambda example: ranked(example, weights, trees)


def _leads(contender: Contender, best: Contender) -> bool:
    difference = contender.ndcg - best.ndcg
    error = float(difference.std()) / max(len(difference), 1) ** 0.5
    lead = _LEAD * error if contender.serves == "ranker" else 0.0
    return bool(len(difference)) and float(difference.mean()) > lead


def judge(examples: Sequence[Example], scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """NDCG@10 and recall@10 of each case; equal scores count with their middle place."""
    ndcg, recall = np.zeros(len(examples)), np.zeros(len(examples))
    for i, example in enumerate(examples):
        if example.target < 0:
            continue
        values = scores(example)
        own = values[example.target]
        place = float(np.count_nonzero(values > own)) + (np.count_nonzero(values == own) - 1) / 2
        if place < _K:
            recall[i], ndcg[i] = 1.0, 1.0 / np.log2(place + 2)
    return ndcg, recall
