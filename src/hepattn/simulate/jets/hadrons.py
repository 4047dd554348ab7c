"""How partons turn into hadrons."""

# L partons

import numpy as np

from hepattn.simulate.jets.branching import GLUON, Partons
from hepattn.simulate.jets.kinematics import Array
from hepattn.simulate.jets.particles import SELF_CONJUGATE, Index, draw, masses

LIGHT = {
    211: 0.20,
    111: 0.14,
    213: 0.19,
    113: 0.09,
    223: 0.11,
    221: 0.07,
    321: 0.035,
    310: 0.03,
    130: 0.03,
    323: 0.04,
    313: 0.04,
    2212: 0.035,
    2112: 0.035,
    3122: 0.015,
}
"""What a light parton turns into, with shares (particles and antiparticles together)."""
HEAVY = {
    4: {411: 0.25, 421: 0.56, 431: 0.10, 4122: 0.09},
    5: {-511: 0.40, -521: 0.40, -531: 0.10, 5122: 0.10},
}
"""Hadrons of a c and of a b quark, with shares."""
FRAGMENTATION = {4: (3.2, 1.6), 5: (8.0, 1.5)}
"""Beta distribution of the share of a heavy quark's momentum that its hadron takes."""
LIGHT_FRAGMENTATION = (1.3, 1.3)
"""The same of the harder of two hadrons of a light parton."""
MIN_ENERGY = 3.0
"""A light parton of more energy than this, in GeV, makes two hadrons."""
PRIMORDIAL_KT = 0.3
"""Spread of the transverse momentum between the two in GeV, along each axis."""


def fragment(partons: Partons, energy: Array, rng: np.random.Generator) -> Partons:
    """Let hard partons and heavy quarks share their momentum with a light hadron beside theirs.

    Args:
        partons: The end of the shower (L,).
        energy: Energies of the initial partons in GeV (N,).
        rng: Source of randomness.

    Returns:
        The partons, with one more for each that shared.
    """
    flavour = np.abs(partons.flavour)
    hard = energy[partons.parent] * partons.fraction > MIN_ENERGY
    share = rng.beta(*LIGHT_FRAGMENTATION, len(flavour))
    for heavy, shape in FRAGMENTATION.items():
        share = np.where(flavour == heavy, rng.beta(*shape, len(flavour)), share)
    chosen = np.flatnonzero(hard | np.isin(flavour, [*FRAGMENTATION]))
    x = 1.0 - share[chosen]
    kick = rng.normal(0.0, PRIMORDIAL_KT, (len(chosen), 2))
    lost = x * partons.fraction[chosen], x[:, None] * partons.kt[chosen] + kick
    fraction, kt = partons.fraction.copy(), partons.kt.copy()
    fraction[chosen] -= lost[0]
    kt[chosen] -= lost[1]
    light = np.full(len(chosen), GLUON)
    return Partons(
        np.concatenate([partons.parent, partons.parent[chosen]]),
        np.concatenate([partons.flavour, light]),
        np.concatenate([fraction, lost[0]]),
        np.concatenate([kt, lost[1]]),
        np.concatenate([partons.angle, partons.angle[chosen]]),
    )


def choose_hadrons(partons: Partons, energy: Array, rng: np.random.Generator) -> Index:
    """Turn each parton into a hadron of its flavour (local parton-hadron duality).

    Args:
        partons: The end of the shower (L,).
        energy: Energy of each parton in GeV (L,).
        rng: Source of randomness.

    Returns:
        PDG codes (L,).
    """
    num = len(partons.flavour)
    # Soft partons cannot make heavy hadrons: pions only.
    code = np.array([*LIGHT])[draw(LIGHT.values(), num, rng)]
    soft = 2.0 * energy < 2.0 * masses(code)
    code[soft] = np.where(rng.random(soft.sum()) < 2 / 3, 211, 111)
    # A quark lends the hadron its charge; a gluon gives both signs alike.
    flavour = partons.flavour
    sign = np.where(flavour == GLUON, rng.choice([-1, 1], num), np.sign(flavour))
    sign = np.where(np.abs(flavour) % 2 == 0, sign, np.where(flavour == GLUON, sign, -sign))
    code = np.where(np.isin(code, SELF_CONJUGATE), code, sign * code)
    for heavy, table in HEAVY.items():
        found = np.flatnonzero(np.abs(flavour) == heavy)
        chosen = np.array([*table])[draw(table.values(), len(found), rng)]
        code[found] = np.sign(flavour[found]) * chosen
    return code
