"""Hard processes with their initial-state radiation, as quarks, gluons and leptons."""

# N events, R radiated partons, K legs of an event

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepattn.simulate.jets.kinematics import Array, boost, two_body_decay

Index = NDArray[np.integer]

GLUON, BOTTOM = 21, 5
LIGHT = 1
"""Stands for every quark but b."""
MASS = {"W": 80.38, "Z": 91.19, "t": 172.76, "X": 500.0, "Z'": 800.0, "T": 700.0}
"""In GeV; the last three are the signals."""
WIDTH = {"W": 2.085, "Z": 2.495, "t": 1.42, "X": 15.0, "Z'": 24.0, "T": 21.0}
"""In GeV."""
MAX_RADIATED = 4
RADIATED_PT = (15.0, 500.0)
"""Range in GeV of the radiation's pT, which falls as its inverse square."""
RADIATED_ETA = 2.0
SYSTEM_RAPIDITY = 0.9
MAX_CHI = 16.0
"""Largest (1 + |cos|) / (1 - |cos|) of the scattering angle of dijets; they are flat in it."""
DIJET_BOTTOM = 0.05
LEPTONIC = 1.0 / 3.0
"""Share of W bosons that decay into an electron or a muon; the others decay into quarks."""


class Legs(NamedTuple):
    """What comes out of collisions.

    Attributes:
        momentum: Four-momenta (E, px, py, pz) in GeV (N, K, 4); their transverse momenta add up
            to 0.
        code: PDG code (N, K), 0 for none; quarks other than b have that of the down quark.
    """

    momentum: Array
    code: Index


def qcd(num: int, rng: np.random.Generator) -> Legs:
    """Two jets of falling mass, scattered as by the exchange of a gluon."""
    mass = falling(num, 200.0, 3000.0, 3.0, rng)
    system, radiation = collide(mass, 0.8, rng)
    chi = rng.uniform(1.0, MAX_CHI, num)
    cosine = (chi - 1.0) / (chi + 1.0) * rng.choice([-1, 1], num)
    phi = rng.uniform(-np.pi, np.pi, num)
    sine = np.sqrt(1.0 - cosine**2)
    axis = np.stack([np.ones(num), sine * np.cos(phi), sine * np.sin(phi), cosine], axis=-1)
    one = boost(0.5 * mass[:, None] * axis, system)
    bottom = rng.random(num) < DIJET_BOTTOM
    first, second = rng.choice([LIGHT, GLUON], (2, num))
    codes = np.where(bottom, BOTTOM, first), np.where(bottom, BOTTOM, second)
    return assemble(radiation, [one, system - one], codes)


def wjets(num: int, rng: np.random.Generator) -> Legs:
    """A W boson that decays into an electron or a muon and a neutrino."""
    system, radiation = collide(breit_wigner("W", num, rng), 1.8, rng)
    lepton, neutrino = two_body_decay(system, 0.0, 0.0, rng)
    charge = rng.choice([-1, 1], num)
    code = rng.choice([11, 13], num)
    return assemble(radiation, [lepton, neutrino], (-charge * code, charge * (code + 1)))


def zjets(num: int, rng: np.random.Generator) -> Legs:
    """Two electrons or two muons from a Z boson, a tenth of them from the falling continuum."""
    continuum = rng.random(num) < 0.1
    tail = falling(num, 60.0, 3000.0, 3.0, rng)
    return _dileptons(np.where(continuum, tail, breit_wigner("Z", num, rng)), rng)


def zprime_to_ll(num: int, rng: np.random.Generator) -> Legs:
    """Signal: a heavy Z' boson that decays into two electrons or two muons."""
    return _dileptons(breit_wigner("Z'", num, rng), rng)


def _dileptons(mass: Array, rng: np.random.Generator) -> Legs:
    system, radiation = collide(mass, 1.8, rng)
    pair = two_body_decay(system, 0.0, 0.0, rng)
    code = rng.choice([11, 13], len(mass))
    return assemble(radiation, pair, (code, -code))


def ttbar(num: int, rng: np.random.Generator) -> Legs:
    """Two top quarks, each into a b quark and a W boson, which decay independently."""
    tops = [breit_wigner("t", num, rng) for _ in range(2)]
    system, radiation = collide(tops[0] + tops[1] + rng.gamma(1.5, 80.0, num), 1.0, rng)
    momenta, codes = [], []
    for top, charge in zip(two_body_decay(system, *tops, rng), (1, -1), strict=True):
        leptonic = rng.random(num) < LEPTONIC
        legs, kinds = _top_decay(top, charge, leptonic, rng)
        momenta += legs
        codes += kinds
    return assemble(radiation, momenta, codes)


def x_to_bb(num: int, rng: np.random.Generator) -> Legs:
    """Signal: a heavy scalar X that decays into two b quarks."""
    system, radiation = collide(breit_wigner("X", num, rng), 0.8, rng)
    return assemble(radiation, two_body_decay(system, 0.0, 0.0, rng), (BOTTOM, BOTTOM))


def top_partner(num: int, rng: np.random.Generator) -> Legs:
    """Signal: a heavy quark T into b W into three jets, beside a light quark."""
    mass = breit_wigner("T", num, rng)
    system, radiation = collide(mass + 50.0 + rng.exponential(300.0, num), 0.8, rng)
    heavy, spectator = two_body_decay(system, mass, 0.0, rng)
    legs, codes = _top_decay(heavy, 1, np.zeros(num, dtype=bool), rng)
    return assemble(radiation, [spectator, *legs], (LIGHT, *codes))


def _top_decay(
    top: Array, charge: int, leptonic: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[list[Array], list[ArrayLike]]:
    """Decay t into b W, and the W into leptons or quarks."""
    num = len(top)
    boson, bottom = two_body_decay(top, breit_wigner("W", num, rng), 0.0, rng)
    legs = two_body_decay(boson, 0.0, 0.0, rng)
    lepton = rng.choice([11, 13], num)
    codes = (
        np.where(leptonic, -charge * lepton, LIGHT),
        np.where(leptonic, charge * (lepton + 1), LIGHT),
    )
    return [bottom, *legs], [BOTTOM, *codes]


def collide(mass: Array, mean_radiated: float, rng: np.random.Generator) -> tuple[Array, Legs]:
    """Make systems that recoil against the radiation of the initial state.

    Args:
        mass: Masses of the systems in GeV (N,).
        mean_radiated: Mean of the Poisson number of radiated partons, cut at ``MAX_RADIATED``.
        rng: Source of randomness.

    Returns:
        Four-momenta of the systems in GeV (N, 4), and the radiation (R of N events).
    """
    num = len(mass)
    count = np.minimum(rng.poisson(mean_radiated, num), MAX_RADIATED)
    there = np.arange(MAX_RADIATED) < count[:, None]  # (N, R)
    low, high = RADIATED_PT
    pt = 1.0 / (1.0 / low - rng.random(there.shape) * (1.0 / low - 1.0 / high))
    eta = rng.normal(0.0, RADIATED_ETA, there.shape)
    phi = rng.uniform(-np.pi, np.pi, there.shape)
    vectors = [pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)]
    radiated = np.where(there[..., None], np.stack(vectors, axis=-1), 0.0)  # (N, R, 4)
    recoil = -radiated[..., 1:3].sum(1)  # (N, 2)
    rapidity = rng.normal(0.0, SYSTEM_RAPIDITY, num)
    transverse = np.sqrt(mass**2 + (recoil**2).sum(-1))
    energy, z = transverse * np.cosh(rapidity), transverse * np.sinh(rapidity)
    return np.column_stack([energy, recoil, z]), Legs(radiated, np.where(there, GLUON, 0))


def assemble(radiation: Legs, momenta: Sequence[Array], codes: Sequence[ArrayLike]) -> Legs:
    """Put the decay products of the systems beside the radiation.

    Args:
        radiation: The radiated partons.
        momenta: Four-momenta in GeV of each decay product (N, 4).
        codes: PDG code of each, () or (N,).

    Returns:
        All legs.
    """
    num = len(radiation.code)
    columns = [np.broadcast_to(code, num)[:, None] for code in codes]
    return Legs(
        np.concatenate([np.stack(momenta, axis=1), radiation.momentum], axis=1),
        np.concatenate([*columns, radiation.code], axis=1),
    )


def breit_wigner(name: str, num: int, rng: np.random.Generator) -> Array:
    """Draw masses of a resonance.

    Args:
        name: One of ``MASS``.
        num: How many.
        rng: Source of randomness.

    Returns:
        Masses in GeV, at most five widths from the pole (num,).
    """
    edge = np.arctan(10.0)
    return MASS[name] + 0.5 * WIDTH[name] * np.tan(rng.uniform(-edge, edge, num))


def falling(num: int, low: float, high: float, power: float, rng: np.random.Generator) -> Array:
    """Draw from a density that falls as a power.

    Args:
        num: How many.
        low: Smallest value.
        high: Largest value.
        power: The density is proportional to the value to the minus this, above 1.
        rng: Source of randomness.

    Returns:
        Values (num,).
    """
    one, other = low ** (1.0 - power), high ** (1.0 - power)
    return (one - rng.random(num) * (one - other)) ** (1.0 / (1.0 - power))


class Process(NamedTuple):
    """A process of a search.

    Attributes:
        legs: Makes as many collisions as asked, with the given source of randomness.
        expected: Events expected after the selection, as a share of all.
    """

    legs: Callable[[int, np.random.Generator], Legs]
    expected: float


GENERATORS = {
    "qcd": Process(qcd, 0.50),
    "wjets": Process(wjets, 0.20),
    "zjets": Process(zjets, 0.12),
    "ttbar": Process(ttbar, 0.15),
    "x_to_bb": Process(x_to_bb, 0.01),
    "zprime_to_ll": Process(zprime_to_ll, 0.01),
    "top_partner": Process(top_partner, 0.01),
}
