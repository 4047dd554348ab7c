"""Cylindrical and collider coordinates of Cartesian vectors (numpy).

The functions serve positions (mm) and momenta (GeV) alike: the transverse length of a momentum is
its pT.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]


def transverse(x: ArrayLike, y: ArrayLike) -> Array:
    """Give the length in the transverse plane: r of a position, pT of a momentum.

    Args:
        x: First component.
        y: Second component.

    Returns:
        The length, in the unit of the input.
    """
    return np.hypot(x, y)


def azimuth(x: ArrayLike, y: ArrayLike) -> Array:
    """Give the azimuthal angle phi.

    Args:
        x: First component.
        y: Second component.

    Returns:
        The angle in [-pi, pi], in radians.
    """
    return np.arctan2(y, x)


def polar_angle(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> Array:
    """Give the polar angle theta to the z axis.

    Args:
        x: First component.
        y: Second component.
        z: Component along the beam.

    Returns:
        The angle in [0, pi], in radians.
    """
    return np.arctan2(np.hypot(x, y), z)


def pseudorapidity(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> Array:
    """Give the pseudorapidity eta = arsinh(z / r), accurate close to the beam too.

    Args:
        x: First component.
        y: Second component.
        z: Component along the beam.

    Returns:
        The pseudorapidity; infinite on the beam axis, 0 for a null vector.
    """
    r, z = np.hypot(x, y), np.asarray(z)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((r == 0) & (z == 0), 0.0, np.arcsinh(z / r))


def cartesian(pt: ArrayLike, eta: ArrayLike, phi: ArrayLike) -> Array:
    """Build vectors from transverse length, pseudorapidity and azimuth.

    Args:
        pt: Transverse length (...).
        eta: Pseudorapidity (...).
        phi: Azimuth in radians (...).

    Returns:
        (..., 3) in the unit of ``pt``.
    """
    pt = np.asarray(pt)
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=-1)
