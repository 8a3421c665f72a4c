"""What is learned from: for each case the candidates as the service found them, what spoke for each, and the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ranking_service.attribute_features.asker import NOBODY, Asker, asker_of
from ranking_service.pipeline import Judged
from ranking_service.scorers.features import NAMES, SOURCES, features
from ranking_service.scorers.source_weights import source_weights
from ranking_service.scorers.weighted_sum import squash, weighted_sum, z_scores
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.in_process import RecordedService
from zhiyin_offline.evaluation.protocols import Case

Floats = NDArray[np.float32]
_BLEND = NAMES.index("blend")
_CHUNK = 250


@dataclass(frozen=True)
class Example:
    """One case.

    Attributes:
        target: Row of the target; -1: no source found it, so no order of the candidates can show it.
        opinions: Squashed z-scores, a column for each of `SOURCES`, 0 where it has none. Shape (n, sources).
        nudge: Added to every weighted sum, shape (n,).
        builtin: What the weights of the house give, shape (n,).
        proposers: Who proposed each, a bit for each number of `SourceKind`. Shape (n,).
        columns: Features with the house's sum as `blend`, shape (n, features), FLOAT16 to fit more cases in memory.
        items: Item numbers of the candidates, shape (n,).
        asker: Who asked, in which circumstances: with the items all that columns of attributes are made of. Both stay
            at their defaults where nobody will make any.
    """

    target: int
    opinions: Floats
    nudge: Floats
    builtin: Floats
    proposers: NDArray[np.int64]
    columns: NDArray[np.float16]
    items: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    asker: Asker = NOBODY

    def blend(self, weights: Floats) -> Floats:
        """The weighted sum, shape (n,); weights as columns of `opinions`."""
        return self.opinions @ weights + self.nudge

    def features(self, rows: NDArray[np.intp], blend: Floats) -> Floats:
        """What the ranker reads of some candidates under a blend."""
        out = self.columns[rows].astype(np.float32)
        out[:, _BLEND] = blend[rows]
        return out


def collect(
    service: RecordedService, dataset: Dataset, cases: Sequence[Case], progress: Callable[[int], None]
) -> list[Example]:
    """Runs the pipeline for every case. `progress` is told how many are done."""
    targets = iter([dataset.item_ids[case.target] for case in cases])
    examples: list[Example] = []
    for start in range(0, len(cases), _CHUNK):
        part = cases[start : start + _CHUNK]
        examples += service.judge(part, lambda judged: _example(judged, next(targets), dataset.item_numbers))
        progress(len(examples))
    return examples


def _example(judged: Judged, target: str, numbers: Mapping[str, int]) -> Example:
    pool, said = judged.pool, judged.opinions
    opinions = np.zeros((len(pool), len(SOURCES)), np.float32)
    for column, kind in enumerate(SOURCES):
        if kind in said.evidence:
            opinions[:, column] = squash(z_scores(said.evidence[kind], said.resolutions[kind]))
    builtin = weighted_sum(pool, said.evidence, said.resolutions, source_weights(judged.taste), said.nudge).total
    found = pool.ids.index(target) if target in pool.ids else -1
    proposers = np.zeros(len(pool), np.int64)
    for kind, of_kind in pool.provenance.items():
        proposers |= np.where(of_kind.ranks > 0, 1 << kind.value, 0)
    columns = features(judged.taste, pool, said, builtin)
    items = np.array([numbers[item_id] for item_id in pool.ids], np.int32)
    told = np.clip(columns, -6e4, 6e4).astype(np.float16)
    return Example(found, opinions, said.nudge, builtin, proposers, told, items, asker_of(judged.taste))
