"""Which particles an event has: primaries from collisions, secondaries from the material."""

# P particles, V collisions

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepattn.physics.coordinates import cartesian, pseudorapidity
from hepattn.simulate.tracker.config import TrackerConfig
from hepattn.simulate.tracker.geometry import geometry
from hepattn.simulate.tracker.pythia import pythia_primaries

Array = NDArray[np.floating]
Index = NDArray[np.integer]

LUMINOUS_REGION = (0.015, 0.015, 55.0)
"""Standard deviations of the collision points along x, y and z in mm."""
PARTICLES_PER_COLLISION = 50
PASSIVE_RADII = (19.0, 200.0)
"""Beam pipe and support tube in mm: no hits, but secondaries start there."""
MAX_RADIUS, MAX_Z = 1020.0, 2950.0
DECAY_FRACTION, DECAY_LENGTH = 0.2, 150.0
"""Share of secondaries from decays rather than from the material; their mean flight in mm."""
MASS = {11: 0.000511, 13: 0.10566, 211: 0.13957, 321: 0.49368, 2212: 0.93827}
"""Mass in GeV by PDG code."""
PRIMARY_TYPES = {211: 0.85, 321: 0.09, 2212: 0.05, 11: 0.005, 13: 0.005}
SECONDARY_TYPES = {211: 0.6, 2212: 0.36, 11: 0.04}
PRIMARY_SPECTRUM, SECONDARY_SPECTRUM = (0.76, 5.7), (0.09, 4.15)
"""Scale (GeV) and power of pT (1 + pT / scale)^-power, fitted to a public TrackML event."""


class Particles(NamedTuple):
    """Charged particles of one event.

    Attributes:
        identity: Unique positive identifiers (P,).
        kind: PDG codes (P,).
        vertex: Production points in mm (P, 3).
        momentum: Momenta at production in GeV (P, 3).
        charge: -1 or 1 (P,).
        mass: Masses in GeV (P,).
    """

    identity: Index
    kind: Index
    vertex: Array
    momentum: Array
    charge: Index
    mass: Array


def make_particles(config: TrackerConfig, rng: np.random.Generator) -> Particles:
    """Draw the particles of an event.

    Args:
        config: How many and of which kind.
        rng: Source of randomness.

    Returns:
        ``config.num_particles`` particles, collision by collision.
    """
    num_secondary = int(rng.binomial(config.num_particles, config.secondary_fraction))
    num_primary = config.num_particles - num_secondary
    points = rng.normal(0.0, LUMINOUS_REGION, (config.num_particles, 3))  # at most so many are used
    draw = pythia_primaries if config.generator == "pythia8" else _gun_primaries
    primary = draw(config, num_primary, points, rng)
    num_collisions = primary[0].max(initial=0) + 1
    secondary = _secondaries(config, num_secondary, points[:num_collisions], rng)
    collision, kind, vertex, momentum = (
        np.concatenate(pair) for pair in zip(primary, secondary, strict=True)
    )
    order = np.argsort(collision, kind="stable")
    collision, kind, vertex, momentum = (a[order] for a in (collision, kind, vertex, momentum))
    generation = (order >= num_primary).astype(np.int64)
    species = np.abs(kind)
    return Particles(
        identity=_identities(collision, generation),
        kind=kind,
        vertex=vertex,
        momentum=momentum,
        charge=np.where(np.isin(species, (11, 13)), -np.sign(kind), np.sign(kind)),
        mass=np.select([species == code for code in MASS], list(MASS.values())),
    )


def _identities(collision: Index, generation: Index) -> Index:
    """Pack collision, particle and generation into one number, as TrackML's barcodes do."""
    number = np.arange(len(collision)) + 1
    return ((collision % 2047 + 1) << 52) | (number << 24) | (generation << 16) | generation


def _gun_primaries(
    config: TrackerConfig, num: int, points: Array, rng: np.random.Generator
) -> tuple[Index, Index, Array, Array]:
    """Draw primaries: index of the collision, PDG code, vertex (mm) and momentum (GeV)."""
    num_collisions = -(-config.num_particles // PARTICLES_PER_COLLISION)
    collision = rng.integers(num_collisions, size=num)
    eta = rng.uniform(-config.max_eta, config.max_eta, num)
    phi = rng.uniform(-np.pi, np.pi, num)
    pt = _draw_pt(*PRIMARY_SPECTRUM, config.min_pt, num, rng)
    kind = _draw_kind(PRIMARY_TYPES, num, rng)
    return collision, kind, points[collision], cartesian(pt, eta, phi)


def _secondaries(
    config: TrackerConfig, num: int, points: Array, rng: np.random.Generator
) -> tuple[Index, Index, Array, Array]:
    """Draw particles from decays and from interactions of unseen parents with the material."""
    collision = rng.integers(len(points), size=num)
    eta = rng.uniform(-config.max_eta, config.max_eta, num)
    parent = cartesian(1 / np.cosh(eta), eta, rng.uniform(-np.pi, np.pi, num))  # unit vectors
    start = points[collision]
    vertex = start + _flight(start, parent, rng)[:, None] * parent
    pt = _draw_pt(*SECONDARY_SPECTRUM, config.min_pt, num, rng)
    # The softer, the further from the parent's direction: a kick of fixed size.
    spread = np.clip(0.25 / pt, 0.05, 1.5)[:, None]
    heading = np.empty((num, 3))
    pending = np.arange(num)
    while len(pending):
        heading[pending] = parent[pending] + spread[pending] * rng.normal(size=(len(pending), 3))
        slope = pseudorapidity(*heading[pending].T)
        pending = pending[np.abs(slope) > config.max_eta]
    phi = np.arctan2(heading[:, 1], heading[:, 0])
    kind = _draw_kind(SECONDARY_TYPES, num, rng)
    return collision, kind, vertex, cartesian(pt, pseudorapidity(*heading.T), phi)


def _flight(start: Array, parent: Array, rng: np.random.Generator) -> Array:
    """Draw how far parents fly, in mm: to a surface of the detector, or until they decay."""
    barrels, discs = geometry().barrels, geometry().discs
    radii = np.concatenate([barrels.radius, PASSIVE_RADII])
    half_lengths = np.concatenate([barrels.half_length, np.full(len(PASSIVE_RADII), 1500.0)])
    z, cosine = start[:, 2:], parent[:, 2:]
    sine = np.hypot(parent[:, 0], parent[:, 1])[:, None]
    with np.errstate(divide="ignore"):
        distance = np.concatenate([radii / sine, (discs.z - z) / cosine], axis=1)  # (P, S + D)
        room = np.minimum(MAX_RADIUS / sine, (MAX_Z - np.abs(z)) / np.abs(cosine))[:, 0]
    num_radii, r = len(radii), distance * sine
    crossed = np.concatenate(
        [
            np.abs(z + distance[:, :num_radii] * cosine) < half_lengths,
            (r[:, num_radii:] > discs.inner) & (r[:, num_radii:] < discs.outer),
        ],
        axis=1,
    ) & (distance > 0)
    # Each surface that the parent crosses is as likely as the next one.
    pick = np.argmax(np.where(crossed, rng.random(r.shape), -1.0), axis=1)
    decays = (rng.random(len(start)) < DECAY_FRACTION) | ~crossed.any(axis=1)
    decay_length = rng.exponential(DECAY_LENGTH, len(start)) % room  # within the detector
    return np.where(decays, decay_length, distance[np.arange(len(start)), pick])


@cache
def _spectrum(scale: float, power: float, min_pt: float) -> tuple[Array, Array]:
    pt = np.geomspace(min_pt, max(50.0, 10 * min_pt), 4000)
    density = pt * (1 + pt / scale) ** -power
    steps = 0.5 * (density[1:] + density[:-1]) * np.diff(pt)
    cumulative = np.concatenate([[0.0], np.cumsum(steps)])
    return cumulative / cumulative[-1], pt


def _draw_pt(
    scale: float, power: float, min_pt: float, num: int, rng: np.random.Generator
) -> Array:
    return np.interp(rng.random(num), *_spectrum(scale, power, min_pt))


def _draw_kind(shares: dict[int, float], num: int, rng: np.random.Generator) -> Index:
    kind = rng.choice(list(shares), size=num, p=list(shares.values()))
    return kind * rng.choice([-1, 1], size=num)
