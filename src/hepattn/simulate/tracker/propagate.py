"""Particles through the detector: crossings of layers, scattering, losses, crossed modules."""

# P particles, C crossings of layers, N candidates or hits

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepattn.physics.helix import (
    Helix,
    arcs_to_cylinder,
    arcs_to_plane,
    direction,
    make_helix,
    path_per_arc,
    position,
)
from hepattn.simulate.tracker.config import TrackerConfig
from hepattn.simulate.tracker.geometry import Geometry, geometry
from hepattn.simulate.tracker.modules import Modules
from hepattn.simulate.tracker.particles import Particles

Array = NDArray[np.floating]
Index = NDArray[np.integer]

MAX_TURN = np.pi
"""Particles are followed for half a turn, as far as most particles leave hits in public events."""
MIN_ARC = 1e-3
"""Shortest path to a layer in mm: what starts in a layer does not cross it again at once."""
MIN_COSINE = 0.02
"""Grazing tracks leave no hit; their path through a sensor would be longer than the sensor."""

STRAIGHT_MARGIN = 3.0
"""How far in mm from a module a straight step may end for its helix to be tried."""
NUM_NEWTON = 3


class Crossings(NamedTuple):
    """Where particles cross layers, ordered by particle and path.

    The actual trajectory near a crossing at arc length s0 is the helix plus
    ``offset + bend * (s - s0)``.

    Attributes:
        particle: Index of the particle (C,).
        surface: Index of the barrel layer, or number of barrel layers + index of the disc (C,).
        arc: Transverse arc length s0 in mm (C,).
        offset: Accumulated displacement in mm (C, 3).
        bend: Accumulated change of direction, per arc length (C, 3).
    """

    particle: Index
    surface: Index
    arc: Array
    offset: Array
    bend: Array

    def take(self, index: NDArray) -> "Crossings":
        """Select crossings by index or mask."""
        return Crossings(*(field[index] for field in self))


class ModuleHits(NamedTuple):
    """Where particles cross modules.

    Attributes:
        particle: Index of the particle (N,).
        module: Index of the module (N,).
        arc: Transverse arc length in mm, which orders the hits of a particle (N,).
        local: Crossing point of the module plane, u and v, in mm (N, 2).
        local_direction: Unit vector in the module's frame (N, 3).
        position: The same point in the global frame, in mm (N, 3).
        direction: Unit vector in the global frame (N, 3).
    """

    particle: Index
    module: Index
    arc: Array
    local: Array
    local_direction: Array
    position: Array
    direction: Array


def propagate(config: TrackerConfig, particles: Particles, rng: np.random.Generator) -> ModuleHits:
    """Follow particles through the detector.

    Args:
        config: Field, material and losses.
        particles: P particles.
        rng: Source of randomness.

    Returns:
        The crossed modules, without those of lost or undetected particles.
    """
    helix = make_helix(particles.vertex, particles.momentum, particles.charge, config.field)
    crossings = _cross_layers(helix, geometry())
    crossings = _scatter(config, helix, particles, crossings, rng)
    row, module = _candidates(helix, crossings, geometry())
    hits = _cross_modules(helix, crossings.take(row), module, geometry().modules)
    # Near its turning point a track crosses a cylinder twice; both may lead to the same module.
    pair = hits.particle * len(geometry().modules.module) + hits.module
    _, first = np.unique(pair, return_index=True)
    return ModuleHits(*(field[first] for field in hits))


def _cross_layers(helix: Helix, detector: Geometry) -> Crossings:
    barrels, discs = detector.barrels, detector.discs
    arc = arcs_to_cylinder(helix, barrels.radius)  # (P, S, 2)
    z = helix.vertex[:, 2, None, None] + arc * helix.slope[:, None, None]
    arc = np.where(np.abs(z) < barrels.half_length[:, None], arc, np.nan)
    arc_disc = arcs_to_plane(helix, discs.z)  # (P, D)
    turn = 0.5 * helix.curvature[:, None] * arc_disc
    chord = arc_disc * np.sinc(turn / np.pi)
    angle = helix.phi[:, None] + turn
    x = helix.vertex[:, :1] + chord * np.cos(angle)
    y = helix.vertex[:, 1:2] + chord * np.sin(angle)
    r = np.hypot(x, y)
    arc_disc = np.where((r > discs.inner) & (r < discs.outer), arc_disc, np.nan)
    num_barrels = len(barrels.radius)
    surface = np.concatenate(
        [np.repeat(np.arange(num_barrels), 2), num_barrels + np.arange(len(discs.z))]
    )
    arc = np.concatenate([arc.reshape(len(arc), -1), arc_disc], axis=1)  # (P, 2S + D)
    end = MAX_TURN / np.abs(helix.curvature)
    arc = np.where((arc > MIN_ARC) & (arc < end[:, None]), arc, np.inf)
    order = np.argsort(arc, axis=1)
    arc = np.take_along_axis(arc, order, axis=1)
    particle, column = np.nonzero(np.isfinite(arc))
    none = np.zeros((len(particle), 3))
    return Crossings(particle, surface[order[particle, column]], arc[particle, column], none, none)


def _before(value: Array, particle: Index) -> Array:
    """Sum over a particle's earlier crossings; rows are ordered by particle and path (C, ...)."""
    total = np.cumsum(value, axis=0) - value
    first = np.searchsorted(particle, particle)
    return total - total[first]


def _scatter(
    config: TrackerConfig,
    helix: Helix,
    particles: Particles,
    crossings: Crossings,
    rng: np.random.Generator,
) -> Crossings:
    """Add multiple scattering; drop what is absorbed before, or not detected at, a crossing."""
    particle, arc = crossings.particle, crossings.arc
    at = helix.take(particle)
    tangent, point = direction(at, arc), position(at, arc)
    barrel = crossings.surface < len(geometry().barrels.radius)
    radial = np.einsum("ni,ni->n", tangent[:, :2], point[:, :2]) / np.hypot(*point.T[:2])
    cosine = np.maximum(np.abs(np.where(barrel, radial, tangent[:, 2])), 0.1)

    momentum = np.linalg.norm(particles.momentum, axis=1)
    beta = momentum / np.hypot(momentum, particles.mass)
    width = _highland(config.material / cosine, (momentum * beta)[particle])
    kick = width[:, None] * rng.normal(size=(len(arc), 2))  # two transverse angles
    path = (arc * path_per_arc(at))[:, None]
    angle = _before(kick, particle)
    shift = path * angle - _before(kick * path, particle)
    # Transverse axes: one in the x-y plane, one completing the frame.
    side = np.stack([-tangent[:, 1], tangent[:, 0], np.zeros(len(arc))], axis=-1)
    side /= np.hypot(tangent[:, 0], tangent[:, 1])[:, None]
    up = np.cross(tangent, side)
    offset = side * shift[:, :1] + up * shift[:, 1:]
    bend = (side * angle[:, :1] + up * angle[:, 1:]) * path_per_arc(at)[:, None]

    absorbed = rng.random(len(arc)) < config.absorption / cosine
    alive = _before(absorbed.astype(float), particle) == 0
    detected = rng.random(len(arc)) >= config.inefficiency
    return crossings._replace(offset=offset, bend=bend).take(alive & detected)


def _highland(thickness: Array, beta_momentum: Array) -> Array:
    """Give the width of the projected scattering angle after PDG review eq. 34.16, in radians.

    Args:
        thickness: In radiation lengths (C,).
        beta_momentum: Velocity times momentum in GeV (C,).

    Returns:
        (C,); zero without material.
    """
    x = np.maximum(thickness, 1e-9)
    width = 0.0136 / beta_momentum * np.sqrt(x) * (1 + 0.038 * np.log(x))
    return np.where(thickness > 0, width, 0.0)


def _candidates(helix: Helix, crossings: Crossings, detector: Geometry) -> tuple[Index, Index]:
    """List the modules that tracks may meet near each crossing.

    Args:
        helix: P helices.
        crossings: C crossings.
        detector: The detector.

    Returns:
        Row of ``crossings`` (N,) and module (N,).
    """
    at = helix.take(crossings.particle)
    point = position(at, crossings.arc) + crossings.offset
    tangent = direction(at, crossings.arc) * path_per_arc(at)[:, None] + crossings.bend
    radius = np.hypot(point[:, 0], point[:, 1])
    turn = np.arctan2(point[:, 1], point[:, 0]) / (2 * np.pi) + 0.5
    barrel = crossings.surface < len(detector.barrels.radius)
    pairs = [
        *_near_barrel(crossings, np.flatnonzero(barrel), radius, turn, point[:, 2], detector),
        *_near_discs(crossings, np.flatnonzero(~barrel), radius, turn, detector),
    ]
    row, module = (np.concatenate(column) for column in zip(*pairs, strict=True))
    # A straight step to the module's plane leaves few candidates for the exact solution.
    modules = detector.modules
    local = modules.to_local(module, point[row])
    heading = np.einsum("nij,ni->nj", modules.rotation[module], tangent[row])
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = (local[:, :2] - heading[:, :2] * (local[:, 2] / heading[:, 2])[:, None]).T
    limit_u, limit_v = modules.half_u[module].max(axis=1), modules.half_v[module]
    near = (np.abs(u) < limit_u + STRAIGHT_MARGIN) & (np.abs(v) < limit_v + STRAIGHT_MARGIN)
    return row[near], module[near]


def _near_barrel(
    crossings: Crossings, row: Index, radius: Array, turn: Array, z: Array, detector: Geometry
) -> list[tuple[Index, Index]]:
    layers, layer = detector.barrels, crossings.surface[row]
    num_phi, num_z, spacing = layers.num_phi[layer], layers.num_z[layer], layers.spacing[layer]
    phi_index = turn[row] * num_phi - 0.5
    z_index = z[row] / spacing + 0.5 * (num_z - 1)
    phi_step = 2 * np.pi * radius[row] / num_phi
    # Tilt and stagger move the plane off the cylinder: leave a quarter of a module as margin.
    reach_u, reach_v = 1.25 * layers.half_u[layer], 1.25 * layers.half_v[layer]
    pairs = []
    for i in np.rint(phi_index).astype(np.int64) + np.array([[-1], [0], [1]]):
        near_phi = np.abs(phi_index - i) * phi_step < reach_u
        for j in np.rint(z_index).astype(np.int64) + np.array([[-1], [0], [1]]):
            near = near_phi & (np.abs(z_index - j) * spacing < reach_v) & (j >= 0) & (j < num_z)
            module = layers.first_module[layer] + j * num_phi + i % num_phi
            pairs.append((row[near], module[near]))
    return pairs


def _near_discs(
    crossings: Crossings, row: Index, radius: Array, turn: Array, detector: Geometry
) -> list[tuple[Index, Index]]:
    discs = detector.discs
    disc = crossings.surface[row] - len(detector.barrels.radius)
    pairs = []
    for ring in range(discs.num_phi.shape[1]):
        gap = np.abs(radius[row] - discs.radius[disc, ring]) - discs.half_v[disc, ring]
        chosen = (discs.num_phi[disc, ring] > 0) & (gap < 10)  # mm, for the distance of the planes
        ring_row, ring_disc = row[chosen], disc[chosen]
        num_phi = discs.num_phi[ring_disc, ring]
        phi_index = turn[ring_row] * num_phi - 0.5
        phi_step = 2 * np.pi * radius[ring_row] / num_phi
        reach = discs.half_u[ring_disc, ring] + 5
        # Up to four modules of the innermost ring overlap.
        for i in np.rint(phi_index).astype(np.int64) + np.arange(-2, 3)[:, None]:
            near = np.abs(phi_index - i) * phi_step < reach
            module = discs.first_module[ring_disc, ring] + i % num_phi
            pairs.append((ring_row[near], module[near]))
    return pairs


def _cross_modules(
    helix: Helix, crossings: Crossings, module: Index, modules: Modules
) -> ModuleHits:
    """Solve for where tracks meet module planes, by Newton's method from the layer's crossing."""
    at = helix.take(crossings.particle)
    centre, rotation = modules.centre[module], modules.rotation[module]
    normal = rotation[:, :, 2]
    stretch = path_per_arc(at)[:, None]
    arc = crossings.arc
    for iteration in range(NUM_NEWTON + 1):
        step = (arc - crossings.arc)[:, None]
        point = position(at, arc) + crossings.offset + crossings.bend * step
        tangent = direction(at, arc) * stretch + crossings.bend
        if iteration < NUM_NEWTON:
            slope = np.einsum("ni,ni->n", tangent, normal)
            slope = np.where(np.abs(slope) < 1e-6, 1e-6, slope)
            arc = arc - np.einsum("ni,ni->n", point - centre, normal) / slope
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    local = np.einsum("nij,ni->nj", rotation, point - centre)
    local_direction = np.einsum("nij,ni->nj", rotation, tangent)
    kept = (
        (arc > 0)
        & (np.abs(local[:, 2]) < 1e-3)
        & (np.abs(local_direction[:, 2]) > MIN_COSINE)
        & modules.contains(module, local[:, 0], local[:, 1])
    )
    hits = ModuleHits(
        crossings.particle, module, arc, local[:, :2], local_direction, point, tangent
    )
    return ModuleHits(*(field[kept] for field in hits))
