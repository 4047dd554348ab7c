"""Photons from the target, and where their showers leave energy in the xenon."""

# K deposits

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepattn.physics.xec import is_in_xenon, uvw_to_xyz
from hepattn.physics.xec.coordinates import FIDUCIAL_U, FIDUCIAL_V
from hepattn.simulate.xec.config import XecConfig

Array = NDArray[np.float64]

VERTEX_SPREAD = (0.6, 1.0, 4.0)
"""Standard deviation of the place of the decay along x, y and z, in cm."""
CONVERSION_LENGTH = 4.5
"""Mean depth w of the first interaction in cm."""
SHOWER_LENGTH = 3.5
"""Mean path from the first interaction to a deposit in cm."""
SHOWER_SHAPE = 1.6
"""Shape parameter of the gamma distribution of these paths."""
SHOWER_WIDTH = 1.0
"""Standard deviation of deposits across the shower, in each direction, in cm."""
MAX_DEPTH = 38.0
"""Largest depth w of a first interaction in cm."""


class Photon(NamedTuple):
    """A photon that converts in the xenon.

    Attributes:
        energy: In GeV.
        vertex: Where it comes from, x, y, z in cm (3,).
        uvw: Its first interaction in cm (3,).
        xyz: The same in Cartesian coordinates in cm (3,).
        direction: Unit vector of its flight (3,).
    """

    energy: float
    vertex: Array
    uvw: Array
    xyz: Array
    direction: Array


class Deposits(NamedTuple):
    """Where a shower leaves energy.

    Attributes:
        position: x, y, z in cm (K, 3).
        energy: In GeV (K,); 0 outside the xenon.
        path: Path along the shower from the first interaction in cm (K,).
    """

    position: Array
    energy: Array
    path: Array


def make_photon(config: XecConfig, rng: np.random.Generator) -> Photon:
    """Draw a photon: energy, vertex, and its first interaction in the fiducial volume.

    Args:
        config: What to simulate.
        rng: Source of randomness.

    Returns:
        The photon; the interaction is uniform in u and v and exponential in w.
    """
    energy = rng.uniform(config.min_energy, config.max_energy)
    vertex = rng.normal(0.0, VERTEX_SPREAD)
    u, v = rng.uniform(-1, 1, 2) * (FIDUCIAL_U, FIDUCIAL_V)
    # An exponential that ends at the largest depth.
    seen = -np.expm1(-MAX_DEPTH / CONVERSION_LENGTH)
    w = -CONVERSION_LENGTH * np.log1p(-seen * rng.random())
    uvw = np.array([u, v, w])
    xyz = uvw_to_xyz(uvw)
    flight = xyz - vertex
    return Photon(energy, vertex, uvw, xyz, flight / np.linalg.norm(flight))


def make_deposits(photon: Photon, config: XecConfig, rng: np.random.Generator) -> Deposits:
    """Draw where the photon's shower leaves its energy.

    Args:
        photon: The photon.
        config: What to simulate.
        rng: Source of randomness.

    Returns:
        Deposits along the flight; the energy of those outside the xenon is lost.
    """
    num = config.num_deposits
    path = rng.gamma(SHOWER_SHAPE, SHOWER_LENGTH / SHOWER_SHAPE, num)  # (K,)
    aside = rng.normal(0.0, SHOWER_WIDTH, (num, 3))
    aside -= np.outer(aside @ photon.direction, photon.direction)
    position = photon.xyz + np.outer(path, photon.direction) + aside  # (K, 3)
    energy = photon.energy * rng.dirichlet(np.ones(num))
    return Deposits(position, np.where(is_in_xenon(position), energy, 0.0), path)
