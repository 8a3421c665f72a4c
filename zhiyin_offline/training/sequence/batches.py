"""The events of all users, cut into pieces that fit the model and gathered into batches of equal work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Items = NDArray[np.int32]


@dataclass(frozen=True)
class Batch:
    """Pieces of histories, each with what came next.

    Attributes:
        inputs: Items, oldest first, 0 behind the end, shape (pieces, length).
        targets: The item after each input; -1 behind the end.
        weights: Of each position, 0 behind the end; over an epoch they add up to the number of batches.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]


class TrainingSequences:
    """All sequences, laid end to end.

    Args:
        sequences: Each user's items, oldest first; those with fewer than two teach nothing.
        max_length: Inputs of a piece at most.
        positions: Positions of a batch, padding included.
        user_balance: See SequenceSettings.
    """

    def __init__(self, sequences: Sequence[Items], max_length: int, positions: int, user_balance: float) -> None:
        useful = [sequence for sequence in sequences if len(sequence) >= 2]
        self._items = np.concatenate([*useful, np.empty(0, np.int32)]).astype(np.int64)
        self._lengths = np.array([len(sequence) for sequence in useful], np.int64)
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._max_length, self._positions, self._balance = max_length, positions, user_balance

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def target_count(self) -> int:
        """Items that follow another."""
        return int((self._lengths - 1).sum())

    def epoch(self, generator: np.random.Generator) -> list[Batch]:
        """Every target once, in random batches of pieces of like length."""
        starts, counts, users = self._pieces(generator)
        order = np.argsort(counts + 2 * generator.random(len(counts)), kind="stable")
        bounds, longest = [0], 0
        for place, count in enumerate(counts[order].tolist()):
            longest = max(longest, count)
            if longest * (place + 1 - bounds[-1]) > self._positions and place > bounds[-1]:
                bounds.append(place)
                longest = count
        bounds.append(len(order))
        batches = [order[low:high] for low, high in pairwise(bounds) if low < high]
        weights = np.asarray((self._lengths[users] - 1.0) ** -self._balance, np.float64)
        # Over the whole epoch and not within a batch, where histories of like length are together.
        weights *= len(batches) / (weights @ counts)
        return [self._gather(starts, counts, weights, batches[i]) for i in generator.permutation(len(batches))]

    def _pieces(self, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """First input, number of inputs and user of each piece. Long histories are cut elsewhere in every epoch."""
        limit = self._max_length
        short = np.flatnonzero(self._lengths <= limit + 1)
        starts, counts, users = [self._starts[short]], [self._lengths[short] - 1], [short]
        for user in np.flatnonzero(self._lengths > limit + 1).tolist():
            inputs = int(self._lengths[user]) - 1
            cuts = np.unique(np.r_[0, np.arange(int(generator.integers(1, limit + 1)), inputs, limit), inputs])
            starts.append(self._starts[user] + cuts[:-1])
            counts.append(np.diff(cuts))
            users.append(np.full(len(cuts) - 1, user))
        return np.concatenate(starts), np.concatenate(counts), np.concatenate(users)

    def _gather(
        self,
        starts: NDArray[np.int64],
        counts: NDArray[np.int64],
        weights: NDArray[np.float64],
        rows: NDArray[np.int64],
    ) -> Batch:
        places = np.arange(int(counts[rows].max()))
        valid = places < counts[rows, None]
        at = np.where(valid, starts[rows, None] + places, 0)
        weight = np.where(valid, weights[rows, None], 0.0)
        return Batch(
            np.where(valid, self._items[at], 0),
            np.where(valid, self._items[np.where(valid, at + 1, 0)], -1),
            weight.astype(np.float32),
        )
