"""Particles of many jets in one table, and the kinds of particles there are."""

# P particles

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepattn.simulate.jets.kinematics import Array

Index = NDArray[np.integer]


class Species(NamedTuple):
    """A kind of particle.

    Attributes:
        mass: In GeV.
        charge: Of the particle, in units of the elementary charge.
        lifetime: c tau in mm.
    """

    mass: float
    charge: int = 0
    lifetime: float = 0.0


SPECIES = {
    11: Species(0.000511, -1),
    12: Species(0.0),
    13: Species(0.10566, -1),
    14: Species(0.0),
    22: Species(0.0),
    111: Species(0.13498),
    113: Species(0.775),
    130: Species(0.49761),
    211: Species(0.13957, 1),
    213: Species(0.775, 1),
    221: Species(0.54786),
    223: Species(0.78266),
    310: Species(0.49761, 0, 26.84),
    313: Species(0.8955),
    321: Species(0.49368, 1),
    323: Species(0.8917, 1),
    411: Species(1.8697, 1, 0.3118),
    421: Species(1.8648, 0, 0.1229),
    431: Species(1.9683, 1, 0.1504),
    511: Species(5.2797, 0, 0.4551),
    521: Species(5.2793, 1, 0.4911),
    531: Species(5.3669, 0, 0.4527),
    2112: Species(0.93957),
    2212: Species(0.93827, 1),
    3112: Species(1.19745, -1),
    3122: Species(1.11568, 0, 78.9),
    3222: Species(1.18937, 1),
    3312: Species(1.32171, -1),
    3322: Species(1.31486),
    3334: Species(1.67245, -1),
    4122: Species(2.2865, 1, 0.0607),
    5122: Species(5.6196, 0, 0.4410),
}
"""Every kind of particle by its PDG code; antiparticles have the negative code."""
SELF_CONJUGATE = (22, 111, 113, 130, 221, 223, 310)
"""Neutral particles that are their own antiparticles."""
NEUTRINOS = (12, 14, 16)


class Particles(NamedTuple):
    """Particles of many jets.

    Attributes:
        jet: Which jet each belongs to (P,).
        pdg_id: PDG code (P,).
        momentum: Four-momentum in GeV (P, 4).
        vertex: Where it was produced, in mm from the collision (P, 3).
    """

    jet: Index
    pdg_id: Index
    momentum: Array
    vertex: Array

    def take(self, chosen: NDArray) -> "Particles":
        """Select particles.

        Args:
            chosen: Mask or indices.

        Returns:
            Those particles.
        """
        rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen  # faster than a mask
        return Particles(*(column.take(rows, axis=0) for column in self))


def join(parts: list[Particles]) -> Particles:
    """Put sets of particles one after the other.

    Args:
        parts: At least one set.

    Returns:
        All particles.
    """
    return Particles(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


_CODES = np.array(sorted(SPECIES))
_MASS, _CHARGE = (np.array([getattr(SPECIES[c], k) for c in _CODES]) for k in ("mass", "charge"))


def masses(pdg_id: Index) -> Array:
    """Look masses up.

    Args:
        pdg_id: PDG codes, all known to ``SPECIES`` (P,).

    Returns:
        Masses in GeV (P,).
    """
    return _MASS[np.searchsorted(_CODES, np.abs(pdg_id))]


def charges(pdg_id: Index) -> Index:
    """Look charges up.

    Args:
        pdg_id: PDG codes, all known to ``SPECIES`` (P,).

    Returns:
        Charges in units of the elementary charge (P,).
    """
    return _CHARGE[np.searchsorted(_CODES, np.abs(pdg_id))] * np.sign(pdg_id)


def visible(particles: Particles) -> NDArray[np.bool_]:
    """Tell which particles a detector can see.

    Args:
        particles: Stable particles (P,).

    Returns:
        False for neutrinos (P,).
    """
    return ~np.isin(np.abs(particles.pdg_id), NEUTRINOS)


def summed(particles: Particles, num: int) -> Array:
    """Add up the momenta of each jet.

    Args:
        particles: Particles (P,).
        num: Jets.

    Returns:
        Four-momenta in GeV (num, 4).
    """
    columns = [np.bincount(particles.jet, column, num) for column in particles.momentum.T]
    return np.stack(columns, axis=-1)


def draw(shares: Iterable[float], num: int, rng: np.random.Generator) -> Index:
    """Draw numbers of alternatives.

    Args:
        shares: Weight of each alternative, of any sum.
        num: How many draws.
        rng: Source of randomness.

    Returns:
        Which alternative each draw takes (num,).
    """
    edges = np.cumsum([*shares])
    return np.searchsorted(edges[:-1], edges[-1] * rng.random(num), side="right")
