"""An even draw where there is more than can be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def drawn(things: Sequence[T], most: int, seed: int) -> list[T]:
    """At most so many of some things, each as likely as any other, in the order they have."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(things))[:most])
    return [things[int(row)] for row in rows]
