"""The sensors of the flat faces of the calorimeter as grids."""

# P rows in phi, Q columns in z or r

from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
GridName = Literal["inner", "us", "ds", "coarse", "centre"]

CENTRE = (
    (4185, 4742, 4186, 4743, 4187),
    (4744, 4745, 4746, 4747, 4748),
    (4194, 4749, 4195, 4750, 4196),
    (4203, 4751, 4204, 4752, 4205),
    (4753, 4754, 4755, 4756, 4757),
    (4212, 4758, 4213, 4759, 4214),
)
"""The dense centre of the outer face, rows in phi and columns in z: 18 sensors of its own and 12 of
the coarse grid, which stand here and not where that grid has them."""
REPEATS_COARSE = (3, 5)
"""Cells of the fine grid in a coarse one, in phi and in z."""
REPEATS_CENTRE = (2, 3)
"""Cells of the fine grid in one of the centre, in phi and in z."""


class FineGrid(NamedTuple):
    """The outer face in nearly equal cells of 3.23 cm in phi and 2.07 cm in z.

    Attributes:
        sensor: Sensor that each cell belongs to (72, 45), rows in phi, columns in z.
        share: Share of its sensor's photons that a cell gets (72, 45).
    """

    sensor: Index
    share: NDArray[np.float64]


@cache
def grid(name: GridName) -> Index:
    """Give the sensors of a rectangular face.

    Args:
        name: ``inner`` (93 in phi, 44 in z), ``us`` or ``ds`` (24 in phi, 6 in r), ``coarse``: the
            regular sensors of the outer face (24 in phi, 9 in z), or ``centre``, its dense part (6
            in phi, 5 in z). Twelve sensors are in both ``coarse`` and ``centre``; their positions
            are those of the centre.

    Returns:
        Numbers of the sensors (P, Q), read-only; phi (downwards, from the top face to the bottom
        one) grows along the rows, z or r along the columns.

    Raises:
        ValueError: If there is no such face.
    """
    if name == "centre":
        ids = np.array(CENTRE)
    elif name in _FIRST:
        first, shape = _FIRST[name]
        ids = first + np.arange(np.prod(shape)).reshape(shape)
    else:
        raise ValueError(f"name={name!r} is no grid; choose from {(*_FIRST, 'centre')}")
    ids.flags.writeable = False
    return ids


_FIRST = {
    "inner": (0, (93, 44)),
    "coarse": (4092, (24, 9)),
    "us": (4308, (24, 6)),
    "ds": (4452, (24, 6)),
}


@cache
def fine_grid() -> FineGrid:
    """Show both parts of the outer face on one grid.

    A coarse sensor is 3 x 5 cells and one of the centre 2 x 3. The centre covers twelve coarse
    places in full and no other in part: those of the twelve sensors that it re-places, and shows
    itself. So each of the 234 outer sensors is in 15 or in 6 cells, which have 1/15 or 1/6 of it,
    and its photons are conserved. What is not extensive, such as a time, is copied.

    Returns:
        The grid, read-only.
    """
    sensor = _repeated(grid("coarse"), REPEATS_COARSE)  # (72, 45)
    share = np.full(sensor.shape, 1 / np.prod(REPEATS_COARSE))
    centre = _repeated(grid("centre"), REPEATS_CENTRE)  # (12, 15)
    first = [(all_ - own) // 2 for all_, own in zip(sensor.shape, centre.shape, strict=True)]
    patch = tuple(slice(f, f + own) for f, own in zip(first, centre.shape, strict=True))
    sensor[patch] = centre
    share[patch] = 1 / np.prod(REPEATS_CENTRE)
    for array in (sensor, share):
        array.flags.writeable = False
    return FineGrid(sensor, share)


def _repeated(ids: Index, times: tuple[int, int]) -> Index:
    return ids.repeat(times[0], axis=0).repeat(times[1], axis=1)
