"""Which optional sources are worth their cost: those without which the blend finds less, on cases it was not told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ranking_service.candidate import SourceKind
from ranking_service.scorers.features import NAMES, SOURCES
from zhiyin_offline.training.blend_table import BlendTable
from zhiyin_offline.training.choice import judge_learned_ranker, judge_learned_weights
from zhiyin_offline.training.differences import Cases, exceeds
from zhiyin_offline.training.draws import drawn
from zhiyin_offline.training.examples import Example

_PROPOSED_BY = NAMES.index("proposed_by")
# A source stays when it adds this share of what there is and this many standard errors of the difference: it costs
# every request a part of a millisecond.
_WORTH = 0.005
_ERRORS = 0.5
# Cases looked at: each source takes a training of every fold, and all of them took longer than everything else.
_MOST_CASES = 3_000
# Standard errors by which a ranker must lead, which can make something of sources that are of no use to a sum.
_LEAD = 1.0

Say = Callable[[str], None]


def worth_keeping(
    examples: Sequence[Example],
    optional: Sequence[SourceKind],
    seed: int,
    threads: int = 1,
    say: Say = lambda _: None,
) -> tuple[list[Example], list[SourceKind]]:
    """Leaves out optional sources for as long as nothing is lost.

    First in the eyes of learned weights. Where a ranker that hears all sources is better than anything that hears the
    remaining ones, in the eyes of the ranker.

    Args:
        examples: With all sources.
        optional: Sources that may go, the first to go first among equals.
        seed: Of the folds.
        threads: Of the ranker.
        say: Told what is being looked at.

    Returns:
        The examples as they are without the sources that went, and the optional sources that stay.
    """
    kept = _kept(drawn(examples, _MOST_CASES, seed), optional, seed, threads, say)
    gone = [kind for kind in optional if kind not in kept]
    return without(examples, gone), kept


def _kept(
    examples: Sequence[Example], optional: Sequence[SourceKind], seed: int, threads: int, say: Say
) -> list[SourceKind]:
    table = BlendTable.of(examples)
    heard = [kind for kind in optional if np.any(table.opinions[:, SOURCES.index(kind)])]
    say("what each source adds")
    kept, by_weights = _by_weights(table, heard, seed)
    if len(kept) == len(heard):
        return kept
    say("what a ranker makes of each source")
    whole = judge_learned_ranker(examples, seed, threads)
    less = without(examples, [kind for kind in heard if kind not in kept])
    best = max((by_weights, judge_learned_ranker(less, seed, threads)), key=_mean)
    if not exceeds(whole - best, _LEAD, _WORTH * _mean(best)):
        return kept
    return _by_ranker(examples, heard, whole, seed, threads)


def _by_weights(table: BlendTable, heard: Sequence[SourceKind], seed: int) -> tuple[list[SourceKind], Cases]:
    """One source after the other goes, that of least use first. Returns who stays, and NDCG@10 of what they find."""
    kept, ndcg = list(heard), judge_learned_weights(table, seed)
    while kept:
        losses = {kind: ndcg - judge_learned_weights(table.without({kind}), seed) for kind in kept}
        worst = min(kept, key=lambda kind: _mean(losses[kind]))
        if exceeds(losses[worst], _ERRORS, _WORTH * _mean(ndcg)):
            break
        table, ndcg = table.without({worst}), ndcg - losses[worst]
        kept.remove(worst)
    return kept, ndcg


def _by_ranker(
    examples: Sequence[Example], heard: Sequence[SourceKind], ndcg: Cases, seed: int, threads: int
) -> list[SourceKind]:
    """Each source in turn goes, if nothing is lost: trying all of them before each goes would take minutes."""
    kept, present = list(heard), list(examples)
    for kind in heard:
        less = without(present, {kind})
        remaining = judge_learned_ranker(less, seed, threads)
        if not exceeds(ndcg - remaining, _ERRORS, _WORTH * _mean(ndcg)):
            present, ndcg = less, remaining
            kept.remove(kind)
    return kept


def _mean(values: Cases) -> float:
    return float(values.mean())


def without(examples: Sequence[Example], kinds: Collection[SourceKind]) -> list[Example]:
    """The examples as if these sources had never been asked: without what they alone proposed and what they think."""
    if not kinds:
        return list(examples)
    gone = sum(1 << kind.value for kind in kinds)
    places = [SOURCES.index(kind) for kind in kinds]
    columns = [column for column, name in enumerate(NAMES) if name.split(".")[0] in {k.name.lower() for k in kinds}]
    return [_without(example, gone, places, columns) for example in examples]


def _without(example: Example, gone: int, places: Sequence[int], columns: Sequence[int]) -> Example:
    stays = (example.proposers & ~gone) != 0
    rows = np.flatnonzero(stays)
    opinions, features = example.opinions[rows], example.columns[rows]
    opinions[:, places] = 0.0
    features[:, columns] = np.nan
    features[:, _PROPOSED_BY] -= _bits(example.proposers[rows] & gone)
    target = int(np.count_nonzero(stays[: example.target])) if example.target >= 0 and stays[example.target] else -1
    return replace(
        example,
        target=target,
        opinions=opinions,
        nudge=example.nudge[rows],
        builtin=example.builtin[rows],
        proposers=example.proposers[rows] & ~gone,
        columns=features,
        items=example.items[rows],
    )


def _bits(values: NDArray[np.int64]) -> NDArray[np.float16]:
    return np.array([value.bit_count() for value in values.tolist()], np.float16)
