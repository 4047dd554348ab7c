"""What a detector makes of the particles of jets: tracks, photons and neutral hadrons."""

# N jets, P particles

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepattn.simulate.jets.config import JetConfig
from hepattn.simulate.jets.kinematics import Array, directions, distance
from hepattn.simulate.jets.particles import Particles, charges, join, masses, summed, visible

Index = NDArray[np.integer]
Mask = NDArray[np.bool_]

EFFICIENCY = 0.95
"""Probability that a hard charged particle leaves a track."""
TURN_ON = 1.2
"""Scale in GeV of the pT below which tracks and photons are lost (also to pile-up removal)."""
TRACK_RADIUS = 500.0
"""A particle produced farther from the beam line in mm leaves no track."""
PHOTON_CELL = 0.0174
HADRON_CELL = 0.087
"""Width in eta and phi of the cells whose energy is merged."""
PHOTON_THRESHOLD = 0.7
HADRON_THRESHOLD = 2.0
"""Smallest energy of a merged cell in GeV."""


class Jets(NamedTuple):
    """Reconstructed jets; the particles of each are together, by falling pT.

    Attributes:
        num_particles: Particles of each jet (N,).
        momentum: Four-momentum of each jet in GeV (N, 4).
        particles: Four-momenta of the particles in GeV (P, 4).
        pdg_id: Kind of each particle: +-211, 22, 130, +-11, +-13 (P,).
        d0: Transverse impact parameter in mm; 0 without a track (P,).
        d0_error: Its uncertainty in mm (P,).
        dz: Longitudinal impact parameter in mm (P,).
        dz_error: Its uncertainty in mm (P,).
        label: Place of the class of each jet in ``CLASSES`` (N,).
    """

    num_particles: Index
    momentum: Array
    particles: Array
    pdg_id: Index
    d0: Array
    d0_error: Array
    dz: Array
    dz_error: Array
    label: Index

    def take(self, chosen: Index) -> "Jets":
        """Select jets, in a given order.

        Args:
            chosen: Numbers of the jets.

        Returns:
            Those jets.
        """
        first = np.cumsum(self.num_particles) - self.num_particles
        num = self.num_particles[chosen]
        within = np.arange(num.sum()) - np.repeat(np.cumsum(num) - num, num)
        rows = np.repeat(first[chosen], num) + within
        columns = (column[rows] for column in self[2:-1])
        return Jets(num, self.momentum[chosen], *columns, self.label[chosen])


def join_jets(parts: list[Jets]) -> Jets:
    """Put sets of jets one after the other.

    Args:
        parts: At least one set.

    Returns:
        All jets.
    """
    return Jets(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def detect(particles: Particles, num: int, label: int, rng: np.random.Generator) -> Jets:
    """Reconstruct the particles of jets.

    Charged particles leave tracks with a smeared momentum; those that leave none, and neutral
    particles, leave energy in cells of the calorimeters, which is merged and smeared.

    Args:
        particles: Stable particles of ``num`` jets (P,).
        num: How many jets.
        label: Place of their class in ``CLASSES``.
        rng: Source of randomness.

    Returns:
        The jets; some may be empty.
    """
    particles = particles.take(visible(particles))
    kind = np.abs(particles.pdg_id)
    tracked = _leaves_track(particles, rng)
    photon = ~tracked & np.isin(kind, (11, 22))
    hadron = ~tracked & ~photon & (kind != 13)
    tracks = _smeared_tracks(particles.take(tracked), rng)
    photons = _cells(particles.take(photon), PHOTON_CELL, 22, rng)
    hadrons = _cells(particles.take(hadron), HADRON_CELL, 130, rng)
    photons = _smeared(photons, _resolution(photons, 0.05, 0.007), PHOTON_THRESHOLD, rng)
    hadrons = _smeared(hadrons, _resolution(hadrons, 1.0, 0.05), HADRON_THRESHOLD, rng)
    photons = photons.take(_turned_on(photons, rng))
    found = join([tracks, photons, hadrons])
    pt = np.hypot(found.momentum[:, 1], found.momentum[:, 2])
    found = found.take(np.lexsort((-pt, found.jet)))
    d0, d0_error, dz, dz_error = impact_parameters(found, rng)
    # A track tells an electron or a muon; all else that is charged is a charged hadron.
    kind = np.abs(found.pdg_id)
    hadron = (charges(found.pdg_id) != 0) & ~np.isin(kind, (11, 13))
    pdg_id = np.where(hadron, 211 * charges(found.pdg_id), found.pdg_id)
    return Jets(
        num_particles=np.bincount(found.jet, minlength=num),
        momentum=summed(found, num),
        particles=found.momentum,
        pdg_id=pdg_id,
        d0=d0,
        d0_error=d0_error,
        dz=dz,
        dz_error=dz_error,
        label=np.full(num, label),
    )


def accepted(jets: Jets, partons: Array | None, config: JetConfig) -> Index:
    """Find the jets that a data set takes.

    Args:
        jets: Reconstructed jets (N).
        partons: Four-momenta of what each jet must hold within its radius (N, Q, 4), or None.
        config: The range of momenta and the radius.

    Returns:
        Numbers of the jets.
    """
    pt = np.hypot(jets.momentum[:, 1], jets.momentum[:, 2])
    eta, phi = directions(jets.momentum)
    good = (pt >= config.min_pt) & (pt < config.max_pt) & (np.abs(eta) < config.max_eta)
    if partons is not None:
        away = distance(*directions(partons), eta[:, None], phi[:, None])
        good &= (away < config.radius).all(axis=1)
    return np.flatnonzero(good)


def impact_parameters(
    particles: Particles, rng: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Measure how far tracks pass by the collision point.

    Args:
        particles: Reconstructed particles (P,).
        rng: Source of randomness.

    Returns:
        d0, its error, dz and its error in mm, (P,) each; 0 for neutral particles.
    """
    _, px, py, pz = particles.momentum.T
    x, y, z = particles.vertex.T
    pt = np.hypot(px, py)
    true_d0 = (x * py - y * px) / pt
    true_dz = z - (x * px + y * py) * pz / pt**2
    eta = np.abs(np.arcsinh(pz / pt))
    charged = charges(particles.pdg_id) != 0
    # The medians of JetClass tracks against pT, and their growth beyond the barrel.
    forward = np.clip(eta - 1.2, 0.0, 0.6)
    spread = np.exp(rng.normal(0.0, 0.1, (2, len(pt))))
    d0_error = (0.010 + 0.10 / pt) * (0.94 + 0.6 * forward) * spread[0]
    dz_error = (0.031 + 0.13 / pt) * (0.88 + 3.0 * forward) * spread[1]
    d0 = true_d0 + d0_error * rng.normal(size=len(pt))
    dz = true_dz + dz_error * rng.normal(size=len(pt))
    return tuple(np.where(charged, column, 0.0) for column in (d0, d0_error, dz, dz_error))


def _leaves_track(particles: Particles, rng: np.random.Generator) -> Mask:
    charged = charges(particles.pdg_id) != 0
    radius = np.hypot(particles.vertex[:, 0], particles.vertex[:, 1])
    found = _turned_on(particles, rng) & (rng.random(len(charged)) < EFFICIENCY)
    return charged & found & (radius < TRACK_RADIUS)


def _turned_on(particles: Particles, rng: np.random.Generator) -> Mask:
    square = (particles.momentum[:, 1:3] ** 2).sum(-1)
    return rng.random(len(square)) < -np.expm1(-square / TURN_ON**2)


def _smeared_tracks(tracks: Particles, rng: np.random.Generator) -> Particles:
    pt = np.hypot(tracks.momentum[:, 1], tracks.momentum[:, 2])
    factor = 1.0 + rng.normal(size=len(pt)) * np.hypot(0.01, 1.5e-4 * pt)
    vectors = tracks.momentum[:, 1:] * np.maximum(factor, 0.5)[:, None]
    energy = np.sqrt((vectors**2).sum(-1) + masses(tracks.pdg_id) ** 2)
    return tracks._replace(momentum=np.column_stack([energy, vectors]))


def _cells(particles: Particles, width: float, code: int, rng: np.random.Generator) -> Particles:
    """Merge what falls into the same cell of the same jet, somewhere in that cell."""
    eta, phi = directions(particles.momentum)
    row, column = np.floor(np.stack([eta, phi]) / width).astype(np.int64)
    key = (particles.jet * 2**21 + row + 2**20) * 2**21 + column + 2**20
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    energy = np.bincount(place, particles.momentum[:, 0], len(first))
    eta, phi = (np.stack([row, column])[:, first] + rng.random((2, len(first)))) * width
    direction = np.stack([np.cos(phi), np.sin(phi), np.sinh(eta)], axis=-1)
    vectors = (energy / np.cosh(eta))[:, None] * direction
    size = len(first)
    momentum = np.column_stack([energy, vectors])
    return Particles(particles.jet[first], np.full(size, code), momentum, np.zeros((size, 3)))


def _resolution(cells: Particles, stochastic: float, constant: float) -> Array:
    return np.hypot(stochastic / np.sqrt(cells.momentum[:, 0]), constant)


def _smeared(
    cells: Particles, resolution: Array, threshold: float, rng: np.random.Generator
) -> Particles:
    """Smear energies by factors of mean 1 that stay positive, and drop what is too soft."""
    width = np.sqrt(np.log1p(resolution**2))
    factor = np.exp(width * rng.normal(size=len(width)) - 0.5 * width**2)
    cells = cells._replace(momentum=cells.momentum * factor[:, None])
    return cells.take(cells.momentum[:, 0] > threshold)
