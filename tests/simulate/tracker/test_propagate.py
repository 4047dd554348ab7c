import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial import cKDTree

from hepattn.physics.helix import make_helix, position
from hepattn.simulate.tracker import TrackerConfig
from hepattn.simulate.tracker.geometry import geometry
from hepattn.simulate.tracker.particles import Particles, make_particles
from hepattn.simulate.tracker.propagate import ModuleHits, propagate

IDEAL = TrackerConfig(num_particles=200, material=0.0, absorption=0.0, inefficiency=0.0)
MODULES = geometry().modules


def run(config: TrackerConfig, seed: int = 0) -> tuple[Particles, ModuleHits]:
    particles = make_particles(config, np.random.default_rng(seed))
    return particles, propagate(config, particles, np.random.default_rng(seed + 1))


def distance_from_helix(particles: Particles, hits: ModuleHits) -> np.ndarray:
    """Distance in the transverse plane from the circle of an undisturbed particle, in mm."""
    vertex, momentum = particles.vertex[hits.particle], particles.momentum[hits.particle]
    charge = particles.charge[hits.particle]
    radius = np.hypot(momentum[:, 0], momentum[:, 1]) / (0.299792458e-3 * 2.0)
    to_centre = np.stack([momentum[:, 1], -momentum[:, 0]], axis=-1) * charge[:, None]
    to_centre *= (radius / np.linalg.norm(to_centre, axis=1))[:, None]
    centre = vertex[:, :2] + to_centre
    return np.linalg.norm(hits.position[:, :2] - centre, axis=1) - radius


def test_without_scattering_hits_lie_on_exact_helices() -> None:
    particles, hits = run(IDEAL)
    assert_allclose(distance_from_helix(particles, hits), 0.0, atol=1e-6)
    vertex, momentum = particles.vertex[hits.particle], particles.momentum[hits.particle]
    slope = momentum[:, 2] / np.hypot(momentum[:, 0], momentum[:, 1])
    assert_allclose(hits.position[:, 2], vertex[:, 2] + slope * hits.arc, atol=1e-6)


def test_hits_lie_on_their_modules() -> None:
    _, hits = run(TrackerConfig())
    local = MODULES.to_local(hits.module, hits.position)
    assert_allclose(local[:, 2], 0.0, atol=1e-3)
    assert MODULES.contains(hits.module, local[:, 0], local[:, 1]).all()


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        # From the beam line and through all layers: only rims of layers may differ.
        ({"secondary_fraction": 0.0, "min_pt": 0.5}, 0.005),
        # Tracks that start in a layer or turn round in one have no clear crossing of it.
        ({"secondary_fraction": 0.5, "min_pt": 0.15}, 0.03),
    ],
)
def test_no_module_on_a_track_is_missed(changes: dict, tolerance: float) -> None:
    config = TrackerConfig(**{**vars(IDEAL), "num_particles": 40, "max_eta": 3.0, **changes})
    particles, hits = run(config)
    found = set(zip(hits.particle.tolist(), hits.module.tolist(), strict=True))
    expected = brute_force_crossings(particles)
    assert len(expected) > 250
    assert len(found ^ expected) <= tolerance * len(expected)


def brute_force_crossings(particles: Particles) -> set[tuple[int, int]]:
    """Walk along each helix in steps of 1 mm; a module is crossed where w changes its sign."""
    tree = cKDTree(MODULES.centre)
    helices = make_helix(particles.vertex, particles.momentum, particles.charge, 2.0)
    crossed = set()
    for p in range(len(particles.charge)):
        half_turn = np.pi / abs(helices.curvature[p])
        step = 1.0 / np.sqrt(1 + helices.slope[p] ** 2)
        arcs = np.arange(0, min(half_turn, 2500.0), step)
        track = position(helices.take(np.full(len(arcs), p)), arcs)
        inside = (np.abs(track[:, 2]) < 3000) & (np.hypot(*track.T[:2]) < 1050)
        track = track[: np.argmin(inside)] if not inside.all() else track
        near = tree.query_ball_point(track[:-1], 110.0)
        row = np.repeat(np.arange(len(near)), [len(n) for n in near])
        module = np.concatenate([np.array(n, int) for n in near])
        a = MODULES.to_local(module, track[row])
        b = MODULES.to_local(module, track[row + 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (a[:, 2] / (a[:, 2] - b[:, 2]))[:, None]
            point = a + t * (b - a)
        cosine = np.abs(b[:, 2] - a[:, 2])
        hit = (a[:, 2] * b[:, 2] < 0) & (cosine > 0.02)
        hit &= MODULES.contains(module, point[:, 0], point[:, 1])
        crossed |= {(p, int(m)) for m in module[hit]}
    return crossed


def test_scattering_grows_with_material_and_falls_with_momentum() -> None:
    def spread(material: float, min_pt: float) -> float:
        changes = {"material": material, "min_pt": min_pt, "secondary_fraction": 0.0}
        particles, hits = run(TrackerConfig(**{**vars(IDEAL), **changes}))
        return np.percentile(np.abs(distance_from_helix(particles, hits)), 68)

    assert spread(0.025, 0.15) > 5 * spread(0.001, 0.15) > 0
    assert spread(0.025, 0.15) > 5 * spread(0.025, 5.0) > 0


def test_scattering_at_the_first_layer_shows_at_the_second() -> None:
    """Two pixel layers at 32 and 72 mm: the spread is the kick's width times their distance."""
    num, momentum = 4000, 1.0
    phi = np.linspace(-np.pi, np.pi, num)
    particles = Particles(
        identity=np.arange(1, num + 1),
        kind=np.full(num, 13),
        vertex=np.zeros((num, 3)),
        momentum=momentum * np.stack([np.cos(phi), np.sin(phi), 0.1 * np.ones(num)], axis=-1),
        charge=np.ones(num, int),
        mass=np.full(num, 0.10566),
    )
    config = TrackerConfig(absorption=0.0, inefficiency=0.0, material=0.025)
    hits = propagate(config, particles, np.random.default_rng(0))
    second = (MODULES.volume[hits.module] == 8) & (MODULES.layer[hits.module] == 4)
    beta = 1 / np.hypot(1, 0.10566)
    kick = 0.0136 / beta * np.sqrt(0.025) * (1 + 0.038 * np.log(0.025))
    spread = distance_from_helix(particles, hits)[second].std()
    assert spread == pytest.approx(40.0 * kick, rel=0.1)
    first = (MODULES.volume[hits.module] == 8) & (MODULES.layer[hits.module] == 2)
    assert_allclose(distance_from_helix(particles, hits)[first], 0.0, atol=1e-6)


def test_inefficiency_drops_that_share_of_the_hits() -> None:
    lossy = TrackerConfig(**{**vars(IDEAL), "num_particles": 2000, "inefficiency": 0.1})
    _, some = run(lossy)
    _, all_hits = run(TrackerConfig(**{**vars(lossy), "inefficiency": 0.0}))
    assert 1 - len(some.arc) / len(all_hits.arc) == pytest.approx(0.1, abs=0.01)


def test_absorbed_particles_leave_no_later_hits() -> None:
    changes = {"num_particles": 500, "absorption": 0.2, "secondary_fraction": 0.0}
    _, some = run(TrackerConfig(**{**vars(IDEAL), **changes}))
    _, all_hits = run(TrackerConfig(**{**vars(IDEAL), **changes, "absorption": 0.0}))
    kept = set(zip(some.particle.tolist(), some.module.tolist(), strict=True))
    last = np.zeros(500)
    np.maximum.at(last, some.particle, some.arc)
    # What a particle leaves is complete up to its last layer.
    before = all_hits.arc < 0.95 * last[all_hits.particle]
    pairs = zip(all_hits.particle[before].tolist(), all_hits.module[before].tolist(), strict=True)
    assert set(pairs) <= kept
    assert len(some.arc) < 0.6 * len(all_hits.arc)


def test_hits_of_a_particle_are_distinct_modules() -> None:
    _, hits = run(TrackerConfig(num_particles=1000))
    pairs = np.stack([hits.particle, hits.module], axis=-1)
    assert len(np.unique(pairs, axis=0)) == len(pairs)
