"""Whether a difference over cases is one: against its own noise, and against what it is worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Cases = NDArray[np.float64]


def standard_error(values: Cases) -> float:
    """Of the mean; 0 for no values."""
    return float(values.std()) / len(values) ** 0.5 if len(values) else 0.0


def exceeds(difference: Cases, errors: float, least: float) -> bool:
    """Whether the mean is above so many of its standard errors and above `least`."""
    return bool(difference.mean() > max(errors * standard_error(difference), least))
