"""The top and bottom faces of the calorimeter, whose sensors are packed in hexagons."""

# L sensors in a row

from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]

ROW_LENGTHS = (11, 12, 11, 12, 13, 14)
"""Sensors in each row, from the inner radius to the outer one."""
NUM_NODES = sum(ROW_LENGTHS)
FIRST = {"top": 4596, "bottom": 4669}
DIRECTIONS = ((0, -2), (0, 2), (-1, -1), (-1, 1), (1, -1), (1, 1))
"""Steps between neighbours, in rows and in half pitches along z; direction d is number d - 1."""


class HexEdges(NamedTuple):
    """Neighbours on a hexagonal face, as directed edges between its 73 nodes.

    Attributes:
        source: Node j that an edge leaves (366,).
        target: Node i that it leads to (366,), in rising order.
        direction: Which of six the step from j to i is (366,): 1 to 6 as in ``DIRECTIONS``. 0 is
            left for a node itself.
    """

    source: Index
    target: Index
    direction: Index


def hex_face(name: Literal["top", "bottom"]) -> Index:
    """Give the sensors of a hexagonal face.

    Args:
        name: ``top`` or ``bottom``.

    Returns:
        Numbers of the sensors (73,), row by row from the inner radius outwards, each along z.

    Raises:
        ValueError: If there is no such face.
    """
    if name not in FIRST:
        raise ValueError(f"name={name!r} is no hexagonal face; choose from {tuple(FIRST)}")
    return FIRST[name] + np.arange(NUM_NODES)


def hex_places() -> tuple[Index, Index]:
    """Give where the nodes of a hexagonal face are.

    Returns:
        The row (73,), and the place along z in half pitches from the middle of the row (73,).
    """
    row = np.repeat(np.arange(len(ROW_LENGTHS)), ROW_LENGTHS)
    half_pitches = [2 * np.arange(length) - (length - 1) for length in ROW_LENGTHS]
    return row, np.concatenate(half_pitches)


@cache
def hex_edges() -> HexEdges:
    """Give the neighbours on a hexagonal face; they are the same on the top and on the bottom.

    Returns:
        All pairs of sensors that are less than 8 cm apart, in both directions, read-only.
    """
    node = {
        place: i for i, place in enumerate(zip(*map(np.ndarray.tolist, hex_places()), strict=True))
    }
    edges = [
        (node[row - step[0], x - step[1]], target, direction)
        for (row, x), target in node.items()
        for direction, step in enumerate(DIRECTIONS, start=1)
        if (row - step[0], x - step[1]) in node
    ]
    arrays = [np.array(column) for column in zip(*edges, strict=True)]
    for array in arrays:
        array.flags.writeable = False
    return HexEdges(*arrays)
