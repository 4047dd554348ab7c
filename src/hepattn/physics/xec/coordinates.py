"""Coordinates of the liquid-xenon calorimeter, and its volume."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepattn.physics.xec.sensors import HALF_PHI, HALF_Z_IN, HALF_Z_OUT, RADIUS_IN, RADIUS_OUT
from hepattn.physics.xec.sensors import SENSOR_RADIUS as R

Array = NDArray[np.floating]

FIDUCIAL_U = 23.9
"""Largest |u| of the fiducial volume in cm."""
FIDUCIAL_V = 67.9
"""Largest |v| of the fiducial volume in cm."""


def uvw_to_xyz(uvw: ArrayLike) -> Array:
    """Go from the coordinates along the inner face to Cartesian ones.

    Args:
        uvw: u along z, v along the arc of the inner sensors (upwards), w the depth behind them,
            in cm (..., 3).

    Returns:
        x, y, z in cm (..., 3).
    """
    u, v, w = np.moveaxis(np.asarray(uvw), -1, 0)
    return np.stack([-(w + R) * np.cos(v / R), (w + R) * np.sin(v / R), u], axis=-1)


def xyz_to_uvw(xyz: ArrayLike) -> Array:
    """Go from Cartesian coordinates to those along the inner face.

    Args:
        xyz: x, y, z in cm (..., 3).

    Returns:
        u, v, w in cm (..., 3), as ``uvw_to_xyz`` takes them; v is in (-pi R, pi R].
    """
    x, y, z = np.moveaxis(np.asarray(xyz), -1, 0)
    return np.stack([z, R * np.arctan2(y, -x), np.hypot(x, y) - R], axis=-1)


def is_fiducial(uvw: ArrayLike, max_depth: float = np.inf) -> NDArray[np.bool_]:
    """Tell which points are in the fiducial volume.

    Args:
        uvw: u, v, w in cm (..., 3).
        max_depth: Largest w in cm.

    Returns:
        True for |u| < 23.9, |v| < 67.9 and w from 0 to ``max_depth`` (...).
    """
    u, v, w = np.moveaxis(np.asarray(uvw), -1, 0)
    return (np.abs(u) < FIDUCIAL_U) & (np.abs(v) < FIDUCIAL_V) & (w >= 0) & (w <= max_depth)


def is_in_xenon(xyz: ArrayLike) -> NDArray[np.bool_]:
    """Tell which points are in the liquid xenon.

    Args:
        xyz: x, y, z in cm (..., 3).

    Returns:
        True between the faces (...).
    """
    x, y, z = np.moveaxis(np.asarray(xyz), -1, 0)
    r = np.hypot(x, y)
    depth = (r - RADIUS_IN) / (RADIUS_OUT - RADIUS_IN)
    half_z = HALF_Z_IN + (HALF_Z_OUT - HALF_Z_IN) * depth
    inside_phi = np.abs(np.arctan2(y, -x)) < HALF_PHI
    return (depth > 0) & (depth < 1) & (np.abs(z) < half_z) & inside_phi


def angles_to_vector(theta: ArrayLike, phi: ArrayLike) -> Array:
    """Give the direction of a pair of angles, in the convention of the experiment.

    Args:
        theta: Polar angle to the z axis in radians (...).
        phi: Azimuth in radians from the -x axis towards +y (...).

    Returns:
        Unit vectors (..., 3).
    """
    sin = np.sin(theta)
    return np.stack([-sin * np.cos(phi), sin * np.sin(phi), np.cos(theta) + 0 * sin], axis=-1)


def vector_to_angles(vector: ArrayLike) -> tuple[Array, Array]:
    """Give the angles of a direction, in the convention of the experiment.

    Args:
        vector: Vectors of any length but 0 (..., 3).

    Returns:
        theta in [0, pi] and phi in (-pi, pi], in radians (...), as ``angles_to_vector`` takes them.
    """
    x, y, z = np.moveaxis(np.asarray(vector), -1, 0)
    return np.arctan2(np.hypot(x, y), z), np.arctan2(y, -x)
