"""Efficiencies with binomial uncertainties."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta


class Efficiency(NamedTuple):
    """A fraction and the bounds of its 68.3 % interval; arrays or numbers."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def efficiency(passed: ArrayLike, total: ArrayLike, level: float = 0.6827) -> Efficiency:
    """Divide counts, with the Clopper–Pearson interval that never covers too little.

    Args:
        passed: How many passed; counts of any shape.
        total: Out of how many; NaN comes back where it is zero.
        level: Coverage of the interval.

    Raises:
        ValueError: If more passed than there were.
    """
    passed, total = np.asarray(passed, dtype=float), np.asarray(total, dtype=float)
    if (passed > total).any() or (passed < 0).any():
        raise ValueError(f"passed={passed} must lie between 0 and total={total}")
    tail = (1 - level) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        value = passed / total
        low = np.where(passed == 0, 0.0, beta.ppf(tail, passed, total - passed + 1))
        high = np.where(passed == total, 1.0, beta.ppf(1 - tail, passed + 1, total - passed))
    empty = total == 0
    return Efficiency(value, np.where(empty, np.nan, low), np.where(empty, np.nan, high))


def binned_efficiency(x: ArrayLike, passed: ArrayLike, edges: ArrayLike) -> Efficiency:
    """Efficiency in bins of a quantity.

    Args:
        x: The quantity, one value an object.
        passed: Whether the object passed.
        edges: Bin edges in ascending order; objects outside are left out.
    """
    x, passed = np.asarray(x), np.asarray(passed, dtype=bool)
    total, _ = np.histogram(x, edges)
    kept, _ = np.histogram(x[passed], edges)
    return efficiency(kept, total)
