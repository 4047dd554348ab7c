from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hepattn.physics import xec
from hepattn.simulate.xec import XecConfig
from hepattn.simulate.xec.channels import make_channels
from hepattn.simulate.xec.light import propagate
from hepattn.simulate.xec.shower import MAX_DEPTH, Deposits, make_deposits, make_photon

POSITION, NORMAL, FACE, IS_PMT = xec.sensors()
CONFIG = XecConfig()
TWO = Deposits(
    xec.uvw_to_xyz(np.array([[3.0, -20.0, 4.0], [5.0, -24.0, 9.0]])),
    np.array([0.02, 0.01]),
    np.array([1.0, 6.0]),
)


def loop_light(deposits: Deposits, config: XecConfig) -> tuple[np.ndarray, np.ndarray]:
    """Photons and delays, sensor by sensor."""
    direct, delay = np.zeros(4760), np.zeros(4760)
    for point, energy, path in zip(*deposits, strict=True):
        emitted = energy * 1000 * config.light_yield
        for sensor, angle in enumerate(xec.solid_angles(point)):
            distance = np.linalg.norm(POSITION[sensor] - point)
            seen = emitted * angle / (4 * np.pi) * np.exp(-distance / config.absorption_length)
            direct[sensor] += seen
            delay[sensor] += seen * (path + 1.61 * distance) / 29.9792458
    areas = xec.active_areas()
    photons = direct + config.diffuse_share * direct.sum() * areas / areas.sum()
    return photons, np.divide(delay, direct, where=direct > 0, out=np.full(4760, np.nan))


def test_light_is_that_of_a_loop_over_deposits_and_sensors() -> None:
    light = propagate(TWO, CONFIG)
    photons, delay = loop_light(TWO, CONFIG)
    assert light.photons.dtype == light.delay.dtype == np.float32
    assert_allclose(light.photons, photons, rtol=1e-3)
    seen = ~np.isnan(delay) & (photons > 10)
    assert_allclose(light.delay[seen], delay[seen], rtol=1e-3)


def test_sensors_without_direct_light_take_the_mean_delay() -> None:
    light = propagate(TWO, CONFIG)
    blind = (xec.solid_angles(TWO.position) == 0).all(0)
    distance = np.linalg.norm(POSITION[blind, None] - TWO.position, axis=-1)
    expected = (TWO.path + 1.61 * distance) @ TWO.energy / TWO.energy.sum() / 29.9792458
    assert blind.any()
    assert_allclose(light.delay[blind], expected, rtol=1e-4)


def test_a_shower_outside_the_xenon_gives_no_light() -> None:
    light = propagate(TWO._replace(energy=np.zeros(2)), CONFIG)
    assert (light.photons == 0).all()
    assert np.isfinite(light.delay).all()


def test_photons_fly_from_the_target_to_the_fiducial_volume() -> None:
    photons = [make_photon(CONFIG, np.random.default_rng(seed)) for seed in range(2000)]
    energy, vertex, uvw, xyz, direction = (np.stack(c) for c in zip(*photons, strict=True))
    assert xec.is_fiducial(uvw, max_depth=MAX_DEPTH).all()
    assert_allclose(xec.xyz_to_uvw(xyz), uvw, atol=1e-9)
    flight = xyz - vertex
    assert_allclose(direction, flight / np.linalg.norm(flight, axis=1, keepdims=True))
    assert_allclose(vertex.std(0), (0.6, 1.0, 4.0), rtol=0.06)
    assert uvw[:, 2].mean() == pytest.approx(4.5, abs=0.4)
    assert_allclose(energy.mean(), 0.0375, rtol=0.03)
    assert energy.min() > 0.015
    assert energy.max() < 0.060


def test_deposits_follow_the_flight_and_share_the_energy() -> None:
    config = replace(CONFIG, num_deposits=4000)
    rng = np.random.default_rng(0)
    photon = make_photon(config, rng)._replace(
        energy=0.0528, xyz=np.array([-72.0, 0, 0]), direction=np.array([-1.0, 0, 0])
    )
    position, energy, path = make_deposits(photon, config, rng)
    inside = xec.is_in_xenon(position)
    assert_array_equal(energy == 0, ~inside)
    assert 0.98 * 0.0528 < energy.sum() <= 0.0528
    assert_allclose(-72.0 - position[:, 0], path)
    assert path.mean() == pytest.approx(3.5, rel=0.06)
    assert_allclose(position[:, 1:].std(0), 1.0, rtol=0.06)


def test_channels_change_with_the_run_only() -> None:
    one, again, other = (make_channels(CONFIG, run) for run in (0, 0, 1))
    assert_array_equal(one.dead, again.dead)
    assert (one.dead != other.dead).any()
    assert (one.scale != other.scale).all()
    assert_array_equal(one.pde, np.where(IS_PMT, np.float32(0.16), np.float32(0.15)))
    assert one.scale.std() == pytest.approx(0.04, rel=0.1)


def test_dead_channels_are_scattered_and_in_clusters() -> None:
    scattered = make_channels(replace(CONFIG, num_dead_clusters=0), 0).dead
    assert 0.01 < scattered.mean() < 0.03
    clusters = [make_channels(replace(CONFIG, dead_share=0.0), run).dead for run in range(30)]
    assert 0.002 < np.mean(clusters) < 0.015
    source, target = xec.neighbours_within(2.2)
    close = np.mean([dead[source[dead[target]]].mean() for dead in clusters if dead[:4092].any()])
    assert close > 0.5
    assert not make_channels(replace(CONFIG, dead_share=0.0, num_dead_clusters=0), 0).dead.any()
