"""Examples in which it is known what decides, so that it is known what a training should find."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ranking_service.scorers.features import NAMES, SOURCES
from zhiyin_offline.training.examples import Example

CANDIDATES = 40
EVERYBODY = np.full(CANDIDATES, -1, np.int64)
"""All sources proposed all candidates."""
NUMBERS = np.arange(CANDIDATES, dtype=np.int32)
COLUMN = {kind.name.lower(): place for place, kind in enumerate(SOURCES)}


def planted(
    count: int,
    weights: Mapping[str, float],
    seed: int = 0,
    *,
    silent: tuple[str, ...] = (),
    by_feature: Mapping[str, float] | None = None,
    misses: float = 0.0,
) -> list[Example]:
    """Targets drawn with probability exp(sum of weight * opinion): a conditional logit with these weights.

    Args:
        count: Examples.
        weights: By source; sources not named here say what has nothing to do with the choice.
        seed: Of everything drawn.
        silent: Sources that never say anything.
        by_feature: Weights of features that are no source's, which only a ranker can use; drawn evenly from [0, 1].
        misses: Share of examples whose target no source found.
    """
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        opinions = random.standard_normal((CANDIDATES, len(SOURCES))).astype(np.float32)
        opinions[:, [COLUMN[name] for name in silent]] = 0.0
        columns = random.random((CANDIDATES, len(NAMES))).astype(np.float16)
        score = sum((weight * opinions[:, COLUMN[name]] for name, weight in weights.items()), np.zeros(CANDIDATES))
        for name, weight in (by_feature or {}).items():
            score = score + weight * columns[:, NAMES.index(name)].astype(np.float64)
        target = -1 if random.random() < misses else int(random.choice(CANDIDATES, p=shares(score)))
        nothing = np.zeros(CANDIDATES, np.float32)
        house = random.standard_normal(CANDIDATES).astype(np.float32)
        made.append(Example(target, opinions, nothing, house, EVERYBODY, columns, NUMBERS))
    return made


def shares(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """The softmax."""
    powers = np.exp(score - score.max())
    return np.asarray(powers / powers.sum())
