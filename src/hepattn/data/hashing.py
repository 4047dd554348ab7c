"""Numbers that look random and depend on a row and a seed alone."""

# J rows

import numpy as np


def hash_rows(rows: np.ndarray, seed: int) -> np.ndarray:
    """Mix rows and a seed into 64 random bits: the finaliser of SplitMix64, twice.

    Args:
        rows: Rows (J), not negative.
        seed: Any whole number.

    Returns:
        Bits (J) in uint64.
    """
    with np.errstate(over="ignore"):
        # Mixed once more than the rows, so that a row and a seed cannot change places.
        seeded = _mix(_mix(np.array([seed % 2**64], np.uint64)))
        return _mix(_mix(rows.astype(np.uint64)) ^ seeded)


def spread_rows(rows: np.ndarray, seed: int) -> np.ndarray:
    """Give each row a place from 0 to 1, evenly and independently.

    Args:
        rows: Rows (J), not negative.
        seed: Any whole number.

    Returns:
        Places (J) in float64, below 1.
    """
    # 53 bits are what a float64 holds exactly.
    return (hash_rows(rows, seed) >> np.uint64(11)) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
