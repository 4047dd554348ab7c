"""Jets from the parton shower: from the resonance in the laboratory to stable particles."""

# N jets, P particles, Q partons of the decay

import numpy as np
from numpy.typing import NDArray

from hepattn.simulate.jets.config import ALL_CLASSES, PARTON_CLASSES, JetConfig
from hepattn.simulate.jets.decays import decay_all
from hepattn.simulate.jets.detector import Jets, accepted, detect
from hepattn.simulate.jets.kinematics import Array, directions, distance
from hepattn.simulate.jets.particles import Particles, join, masses, summed, visible
from hepattn.simulate.jets.resonances import Decay, decay_of, qcd_jets

SLOPE = 122.0
"""The spectrum of pT falls by e in this many GeV."""
ETA_SPREAD = 0.9
UNDERLYING = 4.5
"""Mean number of hadrons in the cone from the rest of the collision."""
UNDERLYING_SHAPE = 0.8
"""Shape of the gamma distribution of that number from jet to jet: small for wide."""
UNDERLYING_PT = 2.0
"""Their mean transverse momentum in GeV."""


class ShowerSource:
    """Jets of one class from the parton shower.

    Args:
        name: The class.
        config: The cuts.
        rng: Source of randomness.

    Attributes:
        max_batch: Most jets of a batch, which bounds the memory.
    """

    max_batch = 1400

    def __init__(self, name: str, config: JetConfig, rng: np.random.Generator) -> None:
        self.name = name
        self.config = config
        self.rng = rng

    def batch(self, num: int) -> Jets:
        """Try to make jets.

        Args:
            num: How many to try.

        Returns:
            Those that pass the cuts.
        """
        particles, partons = generate(self.name, num, self.config, self.rng)
        particles = particles.take(visible(particles))
        particles = particles.take(within_cone(particles, num, self.config.radius))
        jets = detect(particles, num, ALL_CLASSES.index(self.name), self.rng)
        return jets.take(
            accepted(jets, None if self.name in PARTON_CLASSES else partons, self.config)
        )


def generate(
    name: str, num: int, config: JetConfig, rng: np.random.Generator
) -> tuple[Particles, Array]:
    """Make the stable particles of jets, before any detector.

    Args:
        name: The class.
        num: How many jets; fewer may pass the cuts on the finished jets.
        config: The range of momenta.
        rng: Source of randomness.

    Returns:
        Particles, neutrinos among them, and the four-momenta in GeV of the partons and charged
        leptons that the jet must hold (num, Q, 4).
    """
    # Neutrinos carry away up to half, particles at wide angles some more.
    upper = config.max_pt * (2.0 if name in ("Hqql", "Tbl") else 1.2)
    lower = 0.96 * config.min_pt
    depth = -np.expm1(-(upper - lower) / SLOPE)
    pt = lower - SLOPE * np.log1p(-depth * rng.random(num))
    event = lab_decay(name, pt, rng)
    hadrons = join([event.hadrons, underlying(num, config.radius, rng)])
    eta = _truncated_normal(ETA_SPREAD, config.max_eta + 0.1, num, rng)
    phi = rng.uniform(-np.pi, np.pi, num)
    moved = hadrons._replace(momentum=turn(hadrons.momentum, eta[hadrons.jet], phi[hadrons.jet]))
    legs = event.partons.shape[1]
    partons = turn(event.partons.reshape(-1, 4), np.repeat(eta, legs), np.repeat(phi, legs))
    return decay_all(moved, rng), partons.reshape(num, legs, 4)


def lab_decay(name: str, pt: Array, rng: np.random.Generator) -> Decay:
    """Make decays of resonances that move along the x axis.

    Args:
        name: The class.
        pt: Momenta in GeV (N,).
        rng: Source of randomness.

    Returns:
        Their hadrons and partons; the hadrons of each add up to its momentum.
    """
    if name in PARTON_CLASSES:
        return qcd_jets(pt, rng, name)
    mass, event = decay_of(name, len(pt), rng)
    frame = np.column_stack([np.hypot(pt, mass), pt, np.zeros((len(pt), 2))])
    return event.boosted(frame)


def underlying(num: int, radius: float, rng: np.random.Generator) -> Particles:
    """Make soft hadrons of the rest of the collision, spread evenly around the x axis.

    Args:
        num: Jets.
        radius: Of the jets.
        rng: Source of randomness.

    Returns:
        Pions within the radius.
    """
    activity = rng.gamma(UNDERLYING_SHAPE, UNDERLYING / UNDERLYING_SHAPE, num)
    jet = np.repeat(np.arange(num), rng.poisson(activity))
    code = rng.choice([211, -211, 111], len(jet))
    pt = rng.exponential(UNDERLYING_PT, len(jet)) + 0.1
    distance = radius * np.sqrt(rng.random(len(jet)))
    angle = rng.uniform(-np.pi, np.pi, len(jet))
    eta, phi = distance * np.cos(angle), distance * np.sin(angle)
    momentum = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=-1)
    energy = np.sqrt((momentum**2).sum(-1) + masses(code) ** 2)
    return Particles(jet, code, np.column_stack([energy, momentum]), np.zeros((len(jet), 3)))


def turn(momentum: Array, eta: Array, phi: Array) -> Array:
    """Turn momenta about the beam and boost them along it.

    Args:
        momentum: Four-momenta in GeV (P, 4).
        eta: Rapidity of the boost (P,).
        phi: Angle in radians (P,).

    Returns:
        Four-momenta in GeV (P, 4).
    """
    energy, x, y, z = momentum.T
    cosine, sine, ch, sh = np.cos(phi), np.sin(phi), np.cosh(eta), np.sinh(eta)
    return np.stack(
        [
            ch * energy + sh * z,
            cosine * x - sine * y,
            sine * x + cosine * y,
            sh * energy + ch * z,
        ],
        axis=-1,
    )


def within_cone(particles: Particles, num: int, radius: float) -> NDArray[np.bool_]:
    """Find the particles of the jet: those around the axis of their sum.

    Args:
        particles: Visible particles of ``num`` jets (P,).
        num: Jets.
        radius: Of the jets.

    Returns:
        True for the particles within the radius (P,).
    """
    inside = np.ones(len(particles.jet), dtype=bool)
    eta, phi = directions(particles.momentum)
    for _ in range(3):  # the axis settles at once
        axis_eta, axis_phi = directions(summed(particles.take(inside), num))
        inside = distance(eta, phi, axis_eta[particles.jet], axis_phi[particles.jet]) < radius
    return inside


def _truncated_normal(spread: float, edge: float, num: int, rng: np.random.Generator) -> Array:
    values = rng.normal(0.0, spread, num)
    while (outside := np.abs(values) > edge).any():
        values[outside] = rng.normal(0.0, spread, outside.sum())
    return values
