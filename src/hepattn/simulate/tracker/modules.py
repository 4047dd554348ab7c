"""The silicon modules and their local frames.

A module's local frame is (u, v, w): w is its normal, v points along z (barrel) or outwards (disc).
Lengths are in mm.
"""

# M modules, N points

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Index = NDArray[np.integer]


@dataclass(frozen=True)
class Modules:
    """All modules, one entry each.

    Attributes:
        volume: Volume id (M,).
        layer: Layer id (M,).
        module: Module id, from 1 in each layer (M,).
        centre: Centre in mm (M, 3).
        rotation: Columns are the u, v and w axes (M, 3, 3).
        half_u: Half-width in mm at the lower and at the upper end of v (M, 2).
        half_v: Half-length in mm (M,).
        half_thickness: In mm (M,).
        depth: Depth in mm that collects charge (M,).
        pitch: Cell size in mm along u and v (M, 2).
        digital: Whether cells report 1 rather than a charge (M,).
    """

    volume: Index
    layer: Index
    module: Index
    centre: Array
    rotation: Array
    half_u: Array
    half_v: Array
    half_thickness: Array
    depth: Array
    pitch: Array
    digital: NDArray[np.bool_]

    def contains(self, index: Index, u: Array, v: Array) -> NDArray[np.bool_]:
        """Tell whether points of the module planes lie on the sensors.

        Args:
            index: Modules (N,).
            u: Local coordinates in mm (N,).
            v: Local coordinates in mm (N,).

        Returns:
            True inside (N,).
        """
        low, high = self.half_u[index].T
        half_v = self.half_v[index]
        half_u = 0.5 * (low + high) + 0.5 * (high - low) * v / half_v  # trapezoid
        return (np.abs(v) <= half_v) & (np.abs(u) <= half_u)

    def to_global(self, index: Index, local: Array) -> Array:
        """Move local points to the global frame.

        Args:
            index: Modules (N,).
            local: Points (u, v, w) in mm (N, 3).

        Returns:
            Points (x, y, z) in mm (N, 3).
        """
        return self.centre[index] + np.einsum("nij,nj->ni", self.rotation[index], local)

    def to_local(self, index: Index, point: Array) -> Array:
        """Move global points to the modules' frames.

        Args:
            index: Modules (N,).
            point: Points (x, y, z) in mm (N, 3).

        Returns:
            Points (u, v, w) in mm (N, 3).
        """
        return np.einsum("nij,ni->nj", self.rotation[index], point - self.centre[index])
