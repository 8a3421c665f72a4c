"""When the mean of a space is fixed and when it is renewed. Pure; the rule is argued in docs/decisions.

Text encoders of the contrastive kind put all texts into a narrow cone: their cosines lie between .75 and .95, and what
tells two items apart drowns in what all items share. Subtracting the corpus mean takes the shared part away. The mean
must be the same for every vector that is compared, so it changes only together with a rebuild of the index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Below this many vectors a mean says more about the few items than about the encoder, and vectors stay raw.
MIN_VECTORS = 16
# The mean is renewed when it has moved by this share of the spread (both squared) ...
_MAX_SHIFT = 0.02
# ... and this share of the corpus has been written since it was last looked at.
_MIN_CHANGED = 0.25


@dataclass(frozen=True, slots=True)
class CenteringState:
    """What a space remembers about its vectors.

    Attributes:
        count: Vectors in the space.
        total: Their sum, shape (dimensions,), float64.
        mean: What is subtracted, shape (dimensions,); None: nothing, the space is young.
        epoch: Counts the renewals of the mean, from 0.
        changed: Vectors written or deleted since the mean was last looked at.
    """

    count: int
    total: NDArray[np.float64]
    mean: NDArray[np.float32] | None
    epoch: int
    changed: int


def after_write(
    state: CenteringState, added: NDArray[np.float32], removed: NDArray[np.float32]
) -> tuple[CenteringState, bool]:
    """The state after a write, and whether the mean was renewed.

    Depends on nothing but the writes so far, so a replay decides as the live run did.

    Args:
        state: Before the write.
        added: New vectors, raw, shape (n, dimensions).
        removed: Vectors they replace or that were deleted, shape (m, dimensions).
    """
    count = state.count + len(added) - len(removed)
    total = state.total + added.sum(axis=0, dtype=np.float64) - removed.sum(axis=0, dtype=np.float64)
    changed = state.changed + len(added) + len(removed)
    kept = CenteringState(count, total, state.mean, state.epoch, changed)
    if count < MIN_VECTORS or (state.mean is not None and changed < _MIN_CHANGED * count):
        return kept, False
    mean = (total / count).astype(np.float32)
    if state.mean is not None:
        # Unit vectors: mean squared distance from the mean = 1 - |mean|^2.
        spread = max(1.0 - float(mean @ mean), 1e-6)
        shift = mean - state.mean
        if float(shift @ shift) <= _MAX_SHIFT * spread:
            return CenteringState(count, total, state.mean, state.epoch, 0), False
    return CenteringState(count, total, mean, state.epoch + 1, 0), True


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Vectors with length 1, shape (n, dimensions); zeros stay zeros.

    For everything that enters a cosine space: the mean is one of unit vectors, and subtracting it from a vector of
    another length would change the direction. In float64, where the squares of any float32 have room.
    """
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    out: NDArray[np.float64] = np.divide(exact, lengths, out=np.zeros_like(exact), where=lengths > 0)
    return out.astype(np.float32)


def transform(
    raw: NDArray[np.float32], mean: NDArray[np.float32] | None, *, normalize: bool = True
) -> NDArray[np.float32]:
    """Vectors as the space compares them: mean subtracted, length 1.

    A vector that equals the mean has no direction left; it becomes zero and scores 0 against everything.

    Args:
        raw: Shape (n, dimensions).
        mean: Shape (dimensions,), or None.
        normalize: False for inner product spaces, where lengths matter.
    """
    vectors = raw if mean is None else raw - mean
    if not normalize:
        return np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # float32 leaves dust of about 1e-7 where a vector equals the mean.
    out: NDArray[np.float32] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-6)
    return out
