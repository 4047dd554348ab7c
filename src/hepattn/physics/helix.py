"""Trajectories of charged particles in a solenoid field along z (numpy).

A helix is followed by its transverse arc length s (mm): the path projected onto the x-y plane.
Lengths are in mm, momenta in GeV, the field in tesla, angles in radians.
"""

# P helices, R radii or planes

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]

CURVATURE_CONSTANT = 2.99792458e-4
"""pT in GeV of a unit charge on a circle of 1 mm radius in a field of 1 T."""


class Helix(NamedTuple):
    """Trajectories through a uniform field along z.

    Attributes:
        vertex: Starting points in mm (P, 3).
        phi: Azimuth of the momentum at the start (P,).
        slope: dz/ds = pz / pT (P,).
        curvature: Change of azimuth with arc length, in 1/mm (P,); 0 is a straight line.
    """

    vertex: Array
    phi: Array
    slope: Array
    curvature: Array

    def take(self, index: NDArray[np.integer]) -> "Helix":
        """Select or repeat helices.

        Args:
            index: Which helices (N,).

        Returns:
            N helices.
        """
        return Helix(*(field[index] for field in self))


def make_helix(vertex: Array, momentum: Array, charge: Array, field: float) -> Helix:
    """Build helices from where particles start and how they move.

    Args:
        vertex: Starting points in mm (P, 3).
        momentum: Momenta at the start in GeV (P, 3); pT must not be zero.
        charge: Charges in units of the proton's (P,).
        field: Field along z in tesla; a positive charge then turns towards smaller phi.

    Returns:
        P helices.
    """
    pt = np.hypot(momentum[:, 0], momentum[:, 1])
    return Helix(
        vertex=vertex,
        phi=np.arctan2(momentum[:, 1], momentum[:, 0]),
        slope=momentum[:, 2] / pt,
        curvature=-charge * field * CURVATURE_CONSTANT / pt,
    )


def position(helix: Helix, arc: ArrayLike) -> Array:
    """Give the points at an arc length.

    Args:
        helix: P helices.
        arc: Transverse arc length in mm (P,).

    Returns:
        Points in mm (P, 3).
    """
    half_turn = 0.5 * helix.curvature * arc
    chord = arc * np.sinc(half_turn / np.pi)  # exact and smooth through zero curvature
    angle = helix.phi + half_turn
    step = np.stack([chord * np.cos(angle), chord * np.sin(angle), arc * helix.slope], axis=-1)
    return helix.vertex + step


def direction(helix: Helix, arc: ArrayLike) -> Array:
    """Give the unit tangents at an arc length.

    Args:
        helix: P helices.
        arc: Transverse arc length in mm (P,).

    Returns:
        Unit vectors (P, 3).
    """
    angle = helix.phi + helix.curvature * arc
    tangent = np.stack([np.cos(angle), np.sin(angle), helix.slope], axis=-1)
    return tangent / np.sqrt(1 + helix.slope**2)[:, None]


def path_per_arc(helix: Helix) -> Array:
    """Give the three-dimensional path length per transverse arc length, at least 1.

    Args:
        helix: P helices.

    Returns:
        (P,).
    """
    return np.sqrt(1 + helix.slope**2)


def arcs_to_cylinder(helix: Helix, radius: Array) -> Array:
    """Find where helices cross cylinders around the z axis.

    With the tangent t and the normal n at the vertex v, both in the transverse plane, and
    tau = 2 tan(h s / 2) / h, the condition |x(s)| = r is a quadratic equation in tau,
    (1 + h v.n - h^2 (r^2 - v^2) / 4) tau^2 + 2 v.t tau - (r^2 - v^2) = 0,
    that stays well conditioned for stiff tracks.

    Args:
        helix: P helices.
        radius: Radii in mm (R,).

    Returns:
        The two arc lengths in mm (P, R, 2), each in its first turn and not negative (on a straight
        line: either sign); nan where the cylinder is not reached.
    """
    x, y, phi, h = (a[:, None] for a in (*helix.vertex.T[:2], helix.phi, helix.curvature))
    along = x * np.cos(phi) + y * np.sin(phi)
    across = y * np.cos(phi) - x * np.sin(phi)
    gap = radius**2 - (x**2 + y**2)  # (P, R)
    leading = 1 + h * across - 0.25 * h**2 * gap
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(along**2 + leading * gap)
        q = -(along + np.copysign(root, along))  # avoids cancellation between the two terms
        tau = np.stack([q / leading, -gap / q], axis=-1)  # (P, R, 2)
        h = h[:, None]
        arc = np.where(h == 0, tau, 2 * np.arctan(0.5 * h * tau) / h)
        return np.where((arc < 0) & (h != 0), arc + 2 * np.pi / np.abs(h), arc)


def arcs_to_plane(helix: Helix, z: Array) -> Array:
    """Find where helices cross planes perpendicular to the z axis.

    Args:
        helix: P helices.
        z: Positions of the planes in mm (R,).

    Returns:
        Arc lengths in mm (P, R); negative behind the vertex, not finite where a particle never
        moves along z.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return (z - helix.vertex[:, 2:]) / helix.slope[:, None]
