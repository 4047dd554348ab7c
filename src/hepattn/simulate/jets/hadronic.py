"""From quarks and gluons to hadrons: branching, then hadrons of the partons at the end."""

# N initial partons, L hadrons

from typing import NamedTuple

import numpy as np

from hepattn.simulate.jets.branching import branch
from hepattn.simulate.jets.hadrons import choose_hadrons, fragment
from hepattn.simulate.jets.kinematics import Array, rotate
from hepattn.simulate.jets.particles import Index, Particles, masses


class Showers(NamedTuple):
    """Hadrons of many initial partons, each along the z axis.

    Attributes:
        parent: Which initial parton each comes from (L,).
        pdg_id: PDG code (L,).
        plus: E + pz in GeV (L,).
        minus: E - pz in GeV (L,).
        kt: Transverse momentum in GeV (L, 2).
        mass: Invariant mass of each initial parton's hadrons in GeV (N,).
    """

    parent: Index
    pdg_id: Index
    plus: Array
    minus: Array
    kt: Array
    mass: Array


def shower(flavour: Index, energy: Array, angle: float, rng: np.random.Generator) -> Showers:
    """Let partons branch and turn into hadrons.

    Args:
        flavour: PDG codes (N,).
        energy: Energies in GeV (N,).
        angle: Largest angle of the first branching, 2 tan(theta / 2).
        rng: Source of randomness.

    Returns:
        Their hadrons.
    """
    partons = branch(flavour, energy, np.full(len(flavour), angle), rng)
    partons = fragment(partons, energy, rng)
    own = energy[partons.parent] * partons.fraction
    pdg_id = choose_hadrons(partons, own, rng)
    # Each hadron takes its parton's E + pz and kT; its mass settles E - pz.
    plus = 2.0 * own
    minus = (masses(pdg_id) ** 2 + (partons.kt**2).sum(-1)) / plus
    mass = np.sqrt(2.0 * energy * np.bincount(partons.parent, minus, len(flavour)))
    return Showers(partons.parent, pdg_id, plus, minus, partons.kt, mass)


def place(showers: Showers, momentum: Array, energy: Array) -> Particles:
    """Turn and boost showers, each along its own axis, to given momenta.

    Args:
        showers: The showers of N partons that started with ``energy``.
        momentum: Momenta that each shower's hadrons shall add up to, in GeV (N, 3).
        energy: Energies that the partons started with in GeV (N,).

    Returns:
        The hadrons.
    """
    size = np.sqrt((momentum**2).sum(-1))
    scale = ((np.sqrt(size**2 + showers.mass**2) + size) / (2.0 * energy))[showers.parent]
    plus, minus = showers.plus * scale, showers.minus / scale
    vectors = np.column_stack([showers.kt, 0.5 * (plus - minus)])
    vectors = rotate(vectors, (momentum / size[:, None])[showers.parent])
    four = np.column_stack([0.5 * (plus + minus), vectors])
    return Particles(showers.parent, showers.pdg_id, four, np.zeros_like(vectors))
