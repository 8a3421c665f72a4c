"""Cases side by side, as far as weighted sums need them: weights are tried on thousands of cases by a few products."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ranking_service.candidate import SourceKind
from ranking_service.scorers.features import SOURCES
from zhiyin_offline.training.examples import Example, Floats

_K = 10


@dataclass(frozen=True)
class BlendTable:
    """The candidates of all cases, one case after the other.

    Attributes:
        opinions: As `Example.opinions`, shape (rows, sources).
        nudge: Added to every weighted sum, shape (rows,).
        proposers: As `Example.proposers`, shape (rows,).
        starts: First row of each case and, last, the number of rows, shape (cases + 1,).
        targets: Row of each case's target, -1: no source found it. Shape (cases,).
    """

    opinions: Floats
    nudge: Floats
    proposers: NDArray[np.int64]
    starts: NDArray[np.int64]
    targets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)

    @classmethod
    def of(cls, examples: Sequence[Example]) -> BlendTable:
        """The table of examples, in their order."""
        starts = np.cumsum([0, *(len(example.opinions) for example in examples)])
        found = np.array([example.target for example in examples], np.int64)
        empty = np.zeros((0, len(SOURCES)), np.float32)
        return cls(
            np.concatenate([empty, *(example.opinions for example in examples)]),
            np.concatenate([empty[:, 0], *(example.nudge for example in examples)]),
            np.concatenate([np.zeros(0, np.int64), *(example.proposers for example in examples)]),
            starts,
            np.where(found >= 0, starts[:-1] + found, -1),
        )

    def take(self, cases: NDArray[np.intp]) -> BlendTable:
        """Some of the cases, in the order given."""
        lengths = np.diff(self.starts)[cases]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(self.starts[cases] - starts[:-1], lengths) + np.arange(starts[-1])
        targets = self.targets[cases]
        moved = np.where(targets >= 0, targets - self.starts[cases] + starts[:-1], -1)
        return BlendTable(self.opinions[rows], self.nudge[rows], self.proposers[rows], starts, moved)

    def without(self, kinds: Collection[SourceKind]) -> BlendTable:
        """As if these sources had never been asked: without what they alone proposed and what they think."""
        gone = sum(1 << kind.value for kind in kinds)
        stays = (self.proposers & ~gone) != 0
        kept = np.concatenate([[0], np.cumsum(stays)])
        opinions = self.opinions[stays]
        opinions[:, [SOURCES.index(kind) for kind in kinds]] = 0.0
        there = np.append(stays, False)[self.targets]
        return replace(
            self,
            opinions=opinions,
            nudge=self.nudge[stays],
            proposers=self.proposers[stays] & ~gone,
            starts=kept[self.starts],
            targets=np.where(there, kept[self.targets], -1),
        )

    def ndcg(self, weights: Floats) -> NDArray[np.float64]:
        """NDCG@10 of each case by a weighted sum, equal scores at their middle place. Shape (cases,)."""
        scores = self.opinions @ weights + self.nudge
        found = self.targets >= 0
        own = np.repeat(np.append(scores, np.inf)[self.targets], np.diff(self.starts))
        above, equal = self._counts(scores > own), self._counts(scores == own)
        places = above + np.maximum(equal - 1, 0) / 2
        return np.where(found & (places < _K), 1.0 / np.log2(places + 2.0), 0.0)

    def _counts(self, flags: NDArray[np.bool_]) -> NDArray[np.int64]:
        totals = np.concatenate([[0], np.cumsum(flags)])
        counts: NDArray[np.int64] = totals[self.starts[1:]] - totals[self.starts[:-1]]
        return counts
