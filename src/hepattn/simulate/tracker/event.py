"""One simulated event as TrackML tables."""

# P particles, H hits

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepattn.simulate.tracker.clusters import cluster_positions, digitise
from hepattn.simulate.tracker.config import TrackerConfig
from hepattn.simulate.tracker.geometry import Columns, detector_table, geometry
from hepattn.simulate.tracker.modules import Modules
from hepattn.simulate.tracker.particles import Particles, make_particles
from hepattn.simulate.tracker.propagate import ModuleHits, propagate

Array = NDArray[np.floating]
Index = NDArray[np.integer]

NOISE_CONE = 0.75
"""Noise clusters point back to the origin within this angle in theta and phi, in radians."""
NOISE_COSINE = 0.12
"""Noise clusters are not longer than those of a track with this cosine of incidence."""
NOISE_MOMENTUM = 1e6
"""Size of the meaningless momentum that truth gives noise, in GeV."""
ORDER_KNOTS = (0.0, 0.25, 0.375, 0.5, 0.75, 0.875, 1.0)
ORDER_WEIGHTS = (0.5, 0.3, 0.25, 0.15, 0.15, 0.25, 0.3)
"""Weight of a hit by its place on the track (0 first, 1 last), as public truth files show it."""


@dataclass(frozen=True)
class RawEvent:
    """The five TrackML tables of one event; lengths in mm, momenta in GeV.

    Args:
        number: Number of the event.
        hits: hit_id, x, y, z, volume_id, layer_id, module_id.
        cells: hit_id, ch0, ch1, value.
        particles: particle_id, particle_type, vx, vy, vz, px, py, pz, q, nhits.
        truth: hit_id, particle_id, tx, ty, tz, tpx, tpy, tpz, weight.
        detectors: The modules, the same in every event.
    """

    number: int
    hits: Columns
    cells: Columns
    particles: Columns
    truth: Columns
    detectors: Columns

    @property
    def name(self) -> str:
        """The prefix of the event's files."""
        return event_name(self.number)


def event_name(number: int) -> str:
    """Name an event as TrackML does.

    Args:
        number: Its number.

    Returns:
        The prefix of its files.
    """
    return f"event{number:09d}"


def simulate_event(config: TrackerConfig, number: int) -> RawEvent:
    """Simulate one event.

    Args:
        config: What to simulate.
        number: Which event of the data set; with the seed it decides every random number.

    Returns:
        The event.

    Raises:
        ValueError: If the number is negative.
    """
    if number < 0:
        raise ValueError(f"event number={number} must not be negative")
    rng = np.random.default_rng([config.seed, number])
    modules = geometry().modules
    particles = make_particles(config, rng)
    hits = propagate(config, particles, rng)
    nhits = np.bincount(hits.particle, minlength=config.num_particles)
    weight = hit_weights(hits, particles)
    noise = _noise(config, len(hits.particle), modules, rng)
    hits = ModuleHits(*(np.concatenate(pair) for pair in zip(hits, noise, strict=True)))
    weight = np.append(weight, np.zeros(len(noise.particle)))
    # Ordered by module; within a module nothing tells noise and particles apart.
    shuffled = rng.permutation(len(weight))
    order = shuffled[np.argsort(hits.module[shuffled], kind="stable")]
    hits, weight = ModuleHits(*(field[order] for field in hits)), weight[order]

    cells = digitise(modules, hits.module, hits.local, hits.local_direction, config.threshold, rng)
    measured = cluster_positions(modules, hits.module, cells)
    measured = np.append(measured, np.zeros((len(measured), 1)), axis=1)  # (H, 3), on the plane
    hit_id = np.arange(1, len(weight) + 1)
    return RawEvent(
        number=number,
        hits=_single(
            {
                "hit_id": hit_id,
                **_vector("x", "y", "z", modules.to_global(hits.module, measured)),
                "volume_id": modules.volume[hits.module],
                "layer_id": modules.layer[hits.module],
                "module_id": modules.module[hits.module],
            }
        ),
        cells=_single(
            {
                "hit_id": hit_id[cells.track],
                "ch0": cells.channel[:, 0],
                "ch1": cells.channel[:, 1],
                "value": cells.value,
            }
        ),
        particles=_single(
            {
                "particle_id": particles.identity,
                "particle_type": particles.kind,
                **_vector("vx", "vy", "vz", particles.vertex),
                **_vector("px", "py", "pz", particles.momentum),
                "q": particles.charge,
                "nhits": nhits,
            }
        ),
        truth=_single(_truth(hit_id, hits, particles, weight)),
        detectors=detector_table(),
    )


def hit_weights(hits: ModuleHits, particles: Particles) -> Array:
    """Weight hits as the challenge does (arXiv:1904.06778).

    A hit's weight grows with its particle's pT, from 0.2 at 0.5 GeV to 1 at 3 GeV, and is larger
    for the first and the last hits of the particle. Particles with three hits or fewer weigh
    nothing.

    Args:
        hits: H hits of particles.
        particles: P particles.

    Returns:
        Weights with sum 1 (H,), or all zero if no particle has enough hits.
    """
    order = np.lexsort((hits.arc, hits.particle))
    particle = hits.particle[order]
    count = np.bincount(particle, minlength=len(particles.charge))
    rank = np.arange(len(particle)) - (np.cumsum(count) - count)[particle]
    place = rank / np.maximum(count[particle] - 1, 1)
    by_order = np.interp(place, ORDER_KNOTS, ORDER_WEIGHTS)
    by_order /= np.bincount(particle, by_order, len(count))[particle]
    pt = np.hypot(particles.momentum[:, 0], particles.momentum[:, 1])
    by_pt = np.interp(pt, (0.5, 3.0), (0.2, 1.0))
    weight = np.zeros(len(particle))
    weight[order] = np.where(count[particle] > 3, by_order * by_pt[particle], 0.0)
    total = weight.sum()
    return weight / total if total > 0 else weight


def _noise(
    config: TrackerConfig, num_hits: int, modules: Modules, rng: np.random.Generator
) -> ModuleHits:
    """Draw noise: any module, any place on it, clusters as a track of loose direction leaves."""
    num = int(rng.poisson(num_hits * config.noise_fraction / (1 - config.noise_fraction)))
    module = rng.integers(len(modules.module), size=num)
    v = rng.uniform(-1, 1, num) * modules.half_v[module]
    low, high = modules.half_u[module].T
    half_u = 0.5 * (low + high) + 0.5 * (high - low) * v / modules.half_v[module]
    local = np.stack([rng.uniform(-1, 1, num) * half_u, v], axis=-1)
    point = modules.to_global(module, np.append(local, np.zeros((num, 1)), axis=1))
    theta = np.arctan2(np.hypot(point[:, 0], point[:, 1]), point[:, 2])
    phi = np.arctan2(point[:, 1], point[:, 0])
    heading, local_direction = np.empty((num, 3)), np.zeros((num, 3))
    pending = np.arange(num)
    while len(pending):
        angle = rng.uniform(-NOISE_CONE, NOISE_CONE, (2, len(pending)))
        heading[pending] = _unit(theta[pending] + angle[0], phi[pending] + angle[1])
        rotation = modules.rotation[module[pending]]
        local_direction[pending] = np.einsum("nij,ni->nj", rotation, heading[pending])
        pending = pending[np.abs(local_direction[pending, 2]) < NOISE_COSINE]
    nobody = np.full(num, -1)
    return ModuleHits(nobody, module, np.zeros(num), local, local_direction, point, heading)


def _unit(theta: Array, phi: Array) -> Array:
    sine = np.sin(theta)
    return np.stack([sine * np.cos(phi), sine * np.sin(phi), np.cos(theta)], axis=-1)


def _truth(hit_id: Index, hits: ModuleHits, particles: Particles, weight: Array) -> Columns:
    real = hits.particle >= 0
    size = np.linalg.norm(particles.momentum, axis=1)[hits.particle]
    momentum = hits.direction * np.where(real, size, NOISE_MOMENTUM)[:, None]
    return {
        "hit_id": hit_id,
        "particle_id": np.where(real, particles.identity[hits.particle], 0),
        **_vector("tx", "ty", "tz", hits.position),
        **_vector("tpx", "tpy", "tpz", momentum),
        "weight": weight,
    }


def _vector(x: str, y: str, z: str, vector: Array) -> Columns:
    return dict(zip((x, y, z), vector.T, strict=True))


def _single(columns: Columns) -> Columns:
    """Store floats in single precision, as files keep them, and integers as int64."""
    return {
        name: np.ascontiguousarray(a, np.float32 if a.dtype.kind == "f" else np.int64)
        for name, a in columns.items()
    }
