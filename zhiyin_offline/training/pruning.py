"""Which optional sources are worth their cost: those without which the blend finds less, on cases it was not told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from ranking_service.candidate import SourceKind
from ranking_service.scorers.features import NAMES, SOURCES
from zhiyin_offline.training.choice import judge_learned_weights
from zhiyin_offline.training.examples import Example

_PROPOSED_BY = NAMES.index("proposed_by")
# A source stays when it adds this share of what there is and this many standard errors of the difference: it costs
# every request a part of a millisecond.
_WORTH = 0.01
_ERRORS = 0.5


def worth_keeping(
    examples: Sequence[Example],
    optional: Sequence[SourceKind],
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[list[Example], list[SourceKind]]:
    """Leaves out one optional source after the other for as long as nothing is lost.

    Args:
        examples: With all sources.
        optional: Sources that may go, the first to go first among equals.
        seed: Of the folds.
        say: Told what is being looked at.

    Returns:
        The examples as they are without the sources that went, and the optional sources that stay.
    """
    kept = [kind for kind in optional if any(heard_in(example, kind) for example in examples)]
    present, ndcg = list(examples), judge_learned_weights(examples, seed)
    while kept:
        say("what each source adds")
        tried = {kind: without(present, {kind}) for kind in kept}
        losses = {kind: ndcg - judge_learned_weights(less, seed) for kind, less in tried.items()}
        worst = min(kept, key=lambda kind: float(losses[kind].mean()))
        loss = losses[worst]
        error = float(loss.std()) / len(loss) ** 0.5
        if float(loss.mean()) > max(_WORTH * float(ndcg.mean()), _ERRORS * error):
            break
        present, ndcg = tried[worst], ndcg - loss
        kept.remove(worst)
    return present, kept


def heard_in(example: Example, kind: SourceKind) -> bool:
    """Whether the source said anything about a case."""
    return bool(example.opinions[:, SOURCES.index(kind)].any())


def without(examples: Sequence[Example], kinds: Collection[SourceKind]) -> list[Example]:
    """The examples as if these sources had never been asked: without what they alone proposed and what they think."""
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
    return Example(
        target, opinions, example.nudge[rows], example.builtin[rows], example.proposers[rows] & ~gone, features
    )


def _bits(values: NDArray[np.int64]) -> NDArray[np.float16]:
    return np.array([value.bit_count() for value in values.tolist()], np.float16)
