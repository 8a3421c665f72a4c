"""How far predicted ratings are from those given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mean_absolute_error(predicted: NDArray[np.float64], given: NDArray[np.float64]) -> float:
    """Mean of |predicted - given|."""
    return float(np.abs(predicted - given).mean())


def root_mean_squared_error(predicted: NDArray[np.float64], given: NDArray[np.float64]) -> float:
    """Root of the mean of (predicted - given)^2."""
    return float(np.sqrt(((predicted - given) ** 2).mean()))
