"""How much is added to the relevance of items that nobody has acted on yet.

What users did cannot speak for a new item, so it stands behind all others that the user's interests are as near to,
and it takes clicks to get clicks. The more is added, the more new items are found and the more known ones they push
out. So a share of the items is hidden from everything that is learned, as if they were new, and the largest amount is
taken that costs the cases with other targets next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ranking_service.pipeline import Judged
from ranking_service.scorers.learned import LearnedScorer
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.hidden_items import hide
from zhiyin_offline.evaluation.in_process import RecordedService
from zhiyin_offline.evaluation.memory_catalog import Space
from zhiyin_offline.evaluation.protocols import Case, Split
from zhiyin_offline.training.choice import gain

if TYPE_CHECKING:
    from zhiyin_offline.training.sequence_step import SequencePart

_SHARE = 0.1
_AMOUNTS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
# Of the NDCG of cases whose target is no hidden item. That overstates the loss: every tenth item is hidden here, and a
# catalogue has fewer new ones.
_LOSS = 0.015
_MAX_CASES = 2_000
_FEW = 50


@dataclass(frozen=True)
class NewItemsChoice:
    """What came out: the amount, and NDCG@10 by amount on hidden (`new`) and other (`known`) targets, for people."""

    amount: float
    evidence: dict[str, dict[str, float]]


NOTHING_ADDED = NewItemsChoice(0.0, {})


def as_if_new(
    dataset: Dataset, learned_from: NDArray[np.int64], cases: Sequence[Case], seed: int
) -> tuple[Split, NDArray[np.int32]]:
    """Rows to learn from and cases in which a tenth of the items that occur never did, and the numbers of these items.

    All cases with a hidden target are among them, others up to the bound.
    """
    random = np.random.default_rng(seed)
    items = dataset.events.item[learned_from]
    occur = np.unique(items[items >= 0])
    hidden = np.sort(random.choice(occur, round(_SHARE * len(occur)), replace=False)).astype(np.int32)
    is_hidden = np.isin([case.target for case in cases], hidden)
    order = random.permutation(len(cases))
    new, known = order[is_hidden[order]][: _MAX_CASES // 2], order[~is_hidden[order]]
    drawn = np.sort(np.concatenate([new, known[: _MAX_CASES - len(new)]]))
    split = Split("new items", tuple(cases[int(i)] for i in drawn), learned_from)
    return hide(dataset, split, hidden), hidden


def choose_new_items(
    service: RecordedService,
    scorer_with: Callable[[float], LearnedScorer],
    dataset: Dataset,
    cases: Sequence[Case],
    hidden: NDArray[np.int32],
) -> NewItemsChoice:
    """Tries every amount.

    Args:
        service: Knows nothing of hidden items but what they say.
        scorer_with: The scorer that is to serve, with an amount. Without a learned ranker: that one leaves new items
            where they are, and so the places it can give to others.
        dataset: The record.
        cases: Of `as_if_new`.
        hidden: Of `as_if_new`.
    """
    is_hidden = np.isin([case.target for case in cases], hidden)
    if np.count_nonzero(is_hidden) < _FEW or np.count_nonzero(~is_hidden) < _FEW:
        return NOTHING_ADDED
    scorers = [scorer_with(amount) for amount in _AMOUNTS]
    targets = iter([dataset.item_ids[case.target] for case in cases])

    def gains(judged: Judged) -> list[float]:
        """NDCG@10 of the case by amount."""
        target = next(targets)
        row = judged.pool.ids.index(target) if target in judged.pool.ids else -1
        if row < 0:
            return [0.0] * len(scorers)
        return [gain(scorer.score(judged.taste, judged.pool, judged.opinions).total, row) for scorer in scorers]

    ndcg = np.array(service.judge(cases, gains))
    new, known = ndcg[is_hidden].mean(axis=0), ndcg[~is_hidden].mean(axis=0)
    # New items grow and known ones fall with the amount, but for noise: the last amount before it costs too much.
    dear = np.flatnonzero(known < (1 - _LOSS) * known[0])
    affordable = int(dear[0]) if len(dear) else len(_AMOUNTS)
    best = int(np.argmax(new[:affordable]))
    evidence = {
        f"{amount:g}": {"new": round(float(of_new), 5), "known": round(float(of_known), 5)}
        for amount, of_new, of_known in zip(_AMOUNTS, new, known, strict=True)
    }
    return NewItemsChoice(_AMOUNTS[best], evidence)


def as_new(sequence: SequencePart, semantic: Space, hidden: NDArray[np.int32]) -> Space:
    """The space of a sequence model in which the hidden items have the vectors that new items get."""
    rows = sequence.space.rows.copy()
    rows[hidden] = semantic.rows[hidden] @ sequence.projection if len(sequence.projection) else 0.0
    return replace(sequence.space, rows=rows)
