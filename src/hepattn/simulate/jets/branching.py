"""Angular-ordered branching of quarks and gluons."""

# N initial partons, L partons at the end

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepattn.simulate.jets.kinematics import Array

Index = NDArray[np.integer]

GLUON = 21
QUARK_MASS = np.array([0.0, 0.3, 0.3, 0.5, 1.5, 4.8])
"""Masses in GeV of d, u, s, c, b, at the place of their PDG codes."""
COLOUR = {"quark": 4.0 / 3.0, "gluon": 3.0}
"""Colour factors C_F and C_A."""
LAMBDA = 0.22
"""Scale of the strong coupling in GeV: alpha_s = 1 / (2 b ln(kT / LAMBDA)), to one loop."""
MIN_KT = 0.47
"""Smallest transverse momentum of a branching in GeV."""
BETA = (33 - 2 * 5) / (12 * np.pi)
START = np.log(MIN_KT / LAMBDA)
_GRID = np.linspace(0.0, 14.0, 2801)
_RATE = (_GRID + START) * np.log((_GRID + START) / START) - _GRID


class Partons(NamedTuple):
    """The partons that initial partons branched into.

    Attributes:
        parent: Which initial parton each comes from (L,).
        flavour: PDG code (L,).
        fraction: Share of the light-cone momentum E + pz along the initial parton (L,); the
            shares of an initial parton add up to 1.
        kt: Momentum transverse to the initial parton in GeV (L, 2); adds up to 0.
        angle: Angle of the branching that made each, 2 tan(theta / 2) (L,).
    """

    parent: Index
    flavour: Index
    fraction: Array
    kt: Array
    angle: Array


def branch(flavour: Index, energy: Array, max_angle: Array, rng: np.random.Generator) -> Partons:
    """Let partons branch at ever smaller angles.

    An emission at angle theta takes the share x of the energy with the rate
    dtheta/theta dx P(x) alpha_s(kT) / pi, kT = x E theta > MIN_KT. The soft part of it, 2 C / x,
    is integrated with the running coupling, so that the next angle is found by inverting a table;
    the rest of P(x), and the cone around a heavy quark without emission, are put in by a veto.

    Args:
        flavour: PDG code of the initial partons (N,).
        energy: Energy in GeV (N,).
        max_angle: Largest angle of the first branching, as 2 tan(theta / 2) (N,).
        rng: Source of randomness.

    Returns:
        The partons at the end.
    """
    active = (
        np.arange(len(flavour)),
        flavour.astype(np.int64),
        np.ones(len(flavour)),
        np.zeros((len(flavour), 2)),
        max_angle.astype(float),  # upper limit of the next angle
        max_angle.astype(float),  # angle of the branching that made the parton
    )
    done = []
    while len(active[0]):
        parent, code, fraction, kt, limit, made = active
        own = energy[parent] * fraction
        gluon = code == GLUON
        colour = np.where(gluon, COLOUR["gluon"], COLOUR["quark"])
        reach = np.log(np.maximum(own * limit / MIN_KT, 1.0))
        left = np.interp(reach, _GRID, _RATE)
        left += np.pi * BETA / colour * np.log(rng.random(len(parent)))
        ended = left <= 0.0
        done.append([column[ended] for column in (parent, code, fraction, kt, made)])
        parent, code, fraction, kt, made, own, gluon, left = (
            column[~ended] for column in (parent, code, fraction, kt, made, own, gluon, left)
        )
        reach = np.interp(left, _RATE, _GRID)
        angle = MIN_KT * np.exp(reach) / own
        size = LAMBDA * np.exp(START * ((reach + START) / START) ** rng.random(len(parent)))
        x = size / (own * angle)
        accepted, quark = _veto(x, size, own, angle, code, rng)
        keep = [column[~accepted] for column in (parent, code, fraction, kt, angle, made)]
        parent, code, fraction, kt, own, angle, x, gluon, quark = (
            column[accepted] for column in (parent, code, fraction, kt, own, angle, x, gluon, quark)
        )
        phi = rng.uniform(-np.pi, np.pi, len(parent))
        recoil = (x * (1.0 - x) * own * angle)[:, None] * np.stack(
            [np.cos(phi), np.sin(phi)], axis=-1
        )
        one = np.where(gluon & (quark > 0), quark, GLUON)
        two = np.where(gluon & (quark > 0), -quark, code)
        active = tuple(
            np.concatenate(columns)
            for columns in zip(
                keep,
                (parent, one, fraction * x, x[:, None] * kt + recoil, angle, angle),
                (parent, two, fraction * (1 - x), (1 - x)[:, None] * kt - recoil, angle, angle),
                strict=True,
            )
        )
    return Partons(*(np.concatenate(columns) for columns in zip(*done, strict=True)))


def _veto(
    x: Array, size: Array, own: Array, angle: Array, code: Index, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Index]:
    """Decide which trial branchings happen, and into which quark a gluon goes (0: into gluons)."""
    gluon = code == GLUON
    mass = QUARK_MASS[np.where(gluon, 0, np.abs(code))]
    cone = (angle**2 / (angle**2 + (mass / own) ** 2)) ** 2
    emission = np.where(gluon, (1 - x) + 0.5 * x**2 * (1 - x), 0.5 * (1 + (1 - x) ** 2) * cone)
    # g -> q qbar of five flavours, T_R = 1/2, over 2 C_A / x.
    pair = np.where(gluon, 5 * 0.5 * x * (x**2 + (1 - x) ** 2) / (2 * COLOUR["gluon"]), 0.0)
    draw = rng.random(len(x))
    quark = np.where((draw >= emission) & (draw < emission + pair), rng.integers(1, 6, len(x)), 0)
    soft = (1 - x) * own * angle < MIN_KT  # the parton that emits stays the harder one
    light = (1 - x) * size > QUARK_MASS[quark]
    return (draw < emission + pair) & ~soft & light, quark
