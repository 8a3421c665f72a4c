"""From a relevance to a chance: monotone maps that a training fitted to what users did with what they were shown.

A bundle's manifest holds one of two forms:

    {"slope": 1.3, "intercept": -2.1}                   p(s) = 1 / (1 + exp(-(slope * s + intercept)))  (Platt 1999)
    {"scores": [-1, 0, 2], "chances": [.01, .1, .3]}    linear between the knots, flat beyond them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ranking_service.candidate import Floats

# Beyond this a chance cannot be told from 0 or 1, and exp() need not be asked.
_MOST_LOG_ODDS = 30.0


@dataclass(frozen=True, slots=True)
class Logistic:
    """Two parameters: what few observations can tell. `slope` is not negative."""

    slope: float
    intercept: float

    def chances(self, relevance: Floats) -> Floats:
        """In (0, 1), shape (n,)."""
        odds = np.clip(self.slope * relevance + self.intercept, -_MOST_LOG_ODDS, _MOST_LOG_ODDS)
        found: Floats = (1.0 / (1.0 + np.exp(-odds))).astype(np.float32)
        return found

    def fields(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {"slope": self.slope, "intercept": self.intercept}


@dataclass(frozen=True, slots=True)
class Knots:
    """Any monotone shape. `scores` rise, `chances` do not fall; the same length, at least 1."""

    scores: tuple[float, ...]
    chances_there: tuple[float, ...]

    def chances(self, relevance: Floats) -> Floats:
        """In [0, 1], shape (n,)."""
        found: Floats = np.interp(relevance, self.scores, self.chances_there).astype(np.float32)
        return found

    def fields(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {"scores": list(self.scores), "chances": list(self.chances_there)}


Calibration = Logistic | Knots


def calibration_of(fields: Mapping[str, Any]) -> Calibration | None:
    """The map of a manifest; None: it has none.

    Raises:
        ValueError: It is no monotone map to chances.
        KeyError, TypeError: It is of no known form.
    """
    if not fields:
        return None
    if "slope" in fields:
        slope, intercept = float(fields["slope"]), float(fields["intercept"])
        if not (0.0 <= slope < np.inf and np.isfinite(intercept)):
            raise ValueError("its calibration falls as the relevance rises")
        return Logistic(slope, intercept)
    scores, chances = _numbers(fields["scores"]), _numbers(fields["chances"])
    if len(scores) != len(chances) or not scores or not np.all(np.isfinite([*scores, *chances])):
        raise ValueError("its calibration has knots that are none")
    if np.any(np.diff(scores) <= 0) or np.any(np.diff(chances) < 0) or chances[0] < 0 or chances[-1] > 1:
        raise ValueError("its calibration is no monotone map to chances")
    return Knots(scores, chances)


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
