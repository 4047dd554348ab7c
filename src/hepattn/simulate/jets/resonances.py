"""The heavy particles that start jets, and their decays into showers."""

# N resonances, Q partons of the decay

from typing import NamedTuple

import numpy as np

from hepattn.simulate.jets.hadronic import place, shower
from hepattn.simulate.jets.kinematics import (
    Array,
    boost,
    isotropic,
    two_body_decay,
    two_body_momentum,
)
from hepattn.simulate.jets.particles import Index, Particles, join, masses

MASS = {"W": 80.38, "Z": 91.19, "H": 125.0, "t": 172.76}
"""Pole masses in GeV."""
WIDTH = {"W": 2.085, "Z": 2.495, "H": 0.004, "t": 1.42}
"""Widths in GeV."""
HEMISPHERE = 2.0
"""Angle of the first branching, 2 tan(theta / 2), of a parton that recoils against another."""
QCD_ANGLE = 0.74
"""Angle of the first branching of a QCD jet's parton, as wide as the jet."""
Z_SHARES = np.array([0.2205, 0.1687, 0.2205, 0.1687, 0.2216])
"""Shares of d, u, s, c, b among the quarks of a Z."""
QCD_FLAVOURS = (1, 2, 3, 4, 5, 21)
QCD_SHARES = np.array([0.25, 0.34, 0.06, 0.06, 0.03, 0.26])
"""Shares of the initial partons of QCD jets: as of jets that recoil against a Z."""
QCD_QUARKS = np.array(QCD_FLAVOURS) != 21


class Decay(NamedTuple):
    """What came out of resonances, in a common frame.

    Attributes:
        hadrons: Hadrons and leptons before their own decays.
        partons: Four-momenta in GeV of the quarks, gluons and charged leptons that the jet must
            hold (N, Q, 4).
    """

    hadrons: Particles
    partons: Array

    def boosted(self, frame: Array) -> "Decay":
        """Carry the decays from their resonances' rest frames into another frame.

        Args:
            frame: Four-momenta of the resonances in GeV (N, 4).

        Returns:
            The same decays in that frame.
        """
        num, legs, _ = self.partons.shape
        partons = boost(self.partons.reshape(-1, 4), np.repeat(frame, legs, axis=0))
        momentum = boost(self.hadrons.momentum, frame[self.hadrons.jet])
        return Decay(self.hadrons._replace(momentum=momentum), partons.reshape(num, legs, 4))


def breit_wigner(name: str, num: int, rng: np.random.Generator) -> Array:
    """Draw masses of a resonance.

    Args:
        name: W, Z, H or t.
        num: How many.
        rng: Source of randomness.

    Returns:
        Masses in GeV, at most seven widths from the pole (num,).
    """
    edge = np.arctan(14.0)
    return MASS[name] + 0.5 * WIDTH[name] * np.tan(rng.uniform(-edge, edge, num))


def decay_to_partons(mass: Array, flavours: Index, rng: np.random.Generator) -> Decay:
    """Let resonances at rest decay into two partons that shower.

    Args:
        mass: Masses in GeV (N,).
        flavours: PDG codes of the two partons (N, 2).
        rng: Source of randomness.

    Returns:
        The decays; the momenta of each add up to (mass, 0, 0, 0).
    """
    num = len(mass)
    missing, parts = np.arange(num), []
    partons = np.empty((num, 2, 4))
    while len(missing):
        half = np.repeat(0.5 * mass[missing], 2)
        showers = shower(flavours[missing].reshape(-1), half, HEMISPHERE, rng)
        first, second = showers.mass.reshape(-1, 2).T
        fits = first + second < 0.98 * mass[missing]  # showers too heavy are made again
        size = two_body_momentum(mass[missing], first, second)
        size = np.where(fits, size, 1.0)[:, None] * isotropic(len(missing), rng)
        both = np.stack([size, -size], axis=1)  # (N, 2, 3)
        hadrons = place(showers, both.reshape(-1, 3), half)
        event = hadrons.jet // 2
        hadrons = hadrons._replace(jet=missing[event])
        parts.append(hadrons.take(fits[event]))
        energy = np.sqrt((both**2).sum(-1) + showers.mass.reshape(-1, 2) ** 2)
        partons[missing] = np.concatenate([energy[..., None], both], axis=-1)
        missing = missing[~fits]
    return Decay(join(parts), partons)


def decay_to_lepton(mass: Array, charge: Index, rng: np.random.Generator) -> Decay:
    """Let W bosons at rest decay into an electron or a muon and its neutrino.

    Args:
        mass: Masses in GeV (N,).
        charge: +1 or -1 (N,).
        rng: Source of randomness.

    Returns:
        The decays.
    """
    num = len(mass)
    code = rng.choice([11, 13], num)
    rest = np.column_stack([mass, np.zeros((num, 3))])
    lepton, neutrino = two_body_decay(rest, masses(code), 0.0, rng)
    particles = Particles(
        np.concatenate([np.arange(num)] * 2),
        np.concatenate([-charge * code, charge * (code + 1)]),
        np.concatenate([lepton, neutrino]),
        np.zeros((2 * num, 3)),
    )
    return Decay(particles, lepton[:, None])


def w_flavours(charge: Index, rng: np.random.Generator) -> Index:
    """Draw the quarks of W bosons.

    Args:
        charge: +1 or -1 (N,).
        rng: Source of randomness.

    Returns:
        PDG codes of the up-type and the down-type quark (N, 2).
    """
    charm = rng.random(len(charge)) < 0.5
    pair = np.stack([np.where(charm, 4, 2), np.where(charm, -3, -1)], axis=-1)
    return charge[:, None] * pair


def decay_top(num: int, leptonic: bool, rng: np.random.Generator) -> tuple[Array, Decay]:
    """Let top quarks at rest decay into a b quark and a W.

    Args:
        num: How many.
        leptonic: Whether the W decays into leptons.
        rng: Source of randomness.

    Returns:
        Masses in GeV (num,) and the decays.
    """
    top, boson = breit_wigner("t", num, rng), breit_wigner("W", num, rng)
    charge = rng.choice([-1, 1], num)
    bottom = charge * 5
    energy = (top**2 - boson**2) / (2.0 * top)
    axis = isotropic(num, rng)
    missing, parts = np.arange(num), []
    b_quark = np.empty((num, 4))
    while len(missing):
        showers = shower(bottom[missing], energy[missing], HEMISPHERE, rng)
        fits = showers.mass < 0.98 * (top - boson)[missing]
        size = two_body_momentum(top[missing], showers.mass, boson[missing])
        momentum = np.where(fits, size, 1.0)[:, None] * axis[missing]
        hadrons = place(showers, momentum, energy[missing])
        hadrons = hadrons.take(fits[hadrons.jet])
        parts.append(hadrons._replace(jet=missing[hadrons.jet]))
        b_quark[missing] = np.column_stack(
            [np.sqrt((momentum**2).sum(-1) + showers.mass**2), momentum]
        )
        missing = missing[~fits]
    if leptonic:
        inner = decay_to_lepton(boson, charge, rng)
    else:
        inner = decay_to_partons(boson, w_flavours(charge, rng), rng)
    frame = np.column_stack([top, np.zeros((num, 3))]) - b_quark
    inner = inner.boosted(frame)
    partons = np.concatenate([b_quark[:, None], inner.partons], axis=1)
    return top, Decay(join([*parts, inner.hadrons]), partons)


def decay_higgs_to_ww(num: int, leptonic: bool, rng: np.random.Generator) -> tuple[Array, Decay]:
    """Let Higgs bosons at rest decay into two W, one of them far off its mass.

    Args:
        num: How many.
        leptonic: Whether one of the two decays into leptons.
        rng: Source of randomness.

    Returns:
        Masses in GeV (num,) and the decays.
    """
    higgs = breit_wigner("H", num, rng)
    real = np.minimum(breit_wigner("W", num, rng), 100.0)
    # m* of H -> W W*: rises to a peak some GeV below the edge.
    virtual = 8.0 + (higgs - real - 8.0) * rng.beta(3.0, 1.8, num)
    heavy_first = rng.random(num) < 0.5
    first = np.where(heavy_first, real, virtual)
    second = np.where(heavy_first, virtual, real)
    rest = np.column_stack([higgs, np.zeros((num, 3))])
    frames = two_body_decay(rest, first, second, rng)
    charge = rng.choice([-1, 1], num)
    one = decay_to_partons(first, w_flavours(charge, rng), rng).boosted(frames[0])
    if leptonic:
        two = decay_to_lepton(second, -charge, rng)
    else:
        two = decay_to_partons(second, w_flavours(-charge, rng), rng)
    two = two.boosted(frames[1])
    partons = np.concatenate([one.partons, two.partons], axis=1)
    return higgs, Decay(join([one.hadrons, two.hadrons]), partons)


def decay_of(name: str, num: int, rng: np.random.Generator) -> tuple[Array, Decay]:
    """Make the resonances of a class of jets and let them decay at rest.

    Args:
        name: A class other than QCD.
        num: How many.
        rng: Source of randomness.

    Returns:
        Masses in GeV (num,) and the decays.
    """
    if name in ("Tbqq", "Tbl", "t"):
        return decay_top(num, name == "Tbl", rng)
    if name in ("H4q", "Hqql"):
        return decay_higgs_to_ww(num, name == "Hqql", rng)
    mass = breit_wigner(name[0], num, rng)
    if name == "Wqq":
        return mass, decay_to_partons(mass, w_flavours(rng.choice([-1, 1], num), rng), rng)
    if name == "Zqq":
        flavour = rng.choice(np.arange(1, 6), num, p=Z_SHARES / Z_SHARES.sum())
    else:
        flavour = np.full(num, {"Hbb": 5, "Hcc": 4, "Hgg": 21}[name])
    other = np.where(flavour == 21, 21, -flavour)
    return mass, decay_to_partons(mass, np.stack([flavour, other], axis=-1), rng)


def qcd_jets(pt: Array, rng: np.random.Generator, name: str = "QCD") -> Decay:
    """Make the showers of quarks and gluons along the x axis.

    Args:
        pt: Energies of the partons in GeV (N,).
        rng: Source of randomness.
        name: Class: QCD for both, ``q`` or ``g`` for one of them.

    Returns:
        The showers, with the initial partons.
    """
    wanted = {"q": QCD_QUARKS, "g": ~QCD_QUARKS}.get(name, np.ones_like(QCD_QUARKS))
    shares = QCD_SHARES * wanted
    flavour = rng.choice(QCD_FLAVOURS, len(pt), p=shares / shares.sum())
    flavour = np.where(flavour == 21, 21, flavour * rng.choice([-1, 1], len(pt)))
    showers = shower(flavour, pt, QCD_ANGLE, rng)
    axis = np.tile([1.0, 0.0, 0.0], (len(pt), 1))
    momentum = np.sqrt(np.maximum(pt**2 - showers.mass**2, 1.0))[:, None] * axis
    hadrons = place(showers, momentum, pt)
    return Decay(hadrons, np.column_stack([pt, momentum])[:, None])
