from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hepattn.simulate.tracker import RawEvent, TrackerConfig, simulate_event
from hepattn.simulate.tracker.compare import read_real_event
from hepattn.simulate.tracker.event import hit_weights
from hepattn.simulate.tracker.geometry import geometry
from hepattn.simulate.tracker.particles import Particles
from hepattn.simulate.tracker.propagate import ModuleHits

MODULES = geometry().modules


@pytest.fixture(scope="module")
def event() -> RawEvent:
    return simulate_event(TrackerConfig(num_particles=800), 3)


def modules_of(event: RawEvent) -> np.ndarray:
    """The module of each hit, found in the detector table by its ids."""
    names = ("volume_id", "layer_id", "module_id")
    ids = zip(*(event.detectors[n].tolist() for n in names), strict=True)
    index = {key: i for i, key in enumerate(ids)}
    keys = zip(*(event.hits[n].tolist() for n in names), strict=True)
    return np.array([index[key] for key in keys])


def points(table: dict, *names: str) -> np.ndarray:
    return np.stack([table[n] for n in names], axis=-1).astype(float)


def test_tables_have_the_columns_of_trackml(event: RawEvent) -> None:
    assert ",".join(event.hits) == "hit_id,x,y,z,volume_id,layer_id,module_id"
    assert ",".join(event.cells) == "hit_id,ch0,ch1,value"
    assert ",".join(event.truth) == "hit_id,particle_id,tx,ty,tz,tpx,tpy,tpz,weight"
    particles = "particle_id,particle_type,vx,vy,vz,px,py,pz,q,nhits"
    assert ",".join(event.particles) == particles
    assert event.name == "event000000003"


def test_all_values_are_finite(event: RawEvent) -> None:
    for table in (event.hits, event.cells, event.particles, event.truth, event.detectors):
        assert all(np.isfinite(column).all() for column in table.values())


def test_hits_lie_on_the_modules_of_the_detector_table(event: RawEvent) -> None:
    module = modules_of(event)
    for point in (points(event.hits, "x", "y", "z"), points(event.truth, "tx", "ty", "tz")):
        local = MODULES.to_local(module, point)
        rounding = 1e-3  # mm, of single precision at 3 m
        assert_allclose(local[:, 2], 0.0, atol=2e-3)
        assert (np.abs(local[:, 0]) <= MODULES.half_u[module].max(axis=1) + rounding).all()
        assert (np.abs(local[:, 1]) <= MODULES.half_v[module] + rounding).all()


@pytest.mark.parametrize("volumes", [(7, 8, 9), (12, 13, 14), (16, 17, 18)])
def test_resolution_is_that_of_the_pitch(event: RawEvent, volumes: tuple) -> None:
    chosen = np.isin(event.hits["volume_id"], volumes) & (event.truth["particle_id"] != 0)
    module = modules_of(event)[chosen]
    found = MODULES.to_local(module, points(event.hits, "x", "y", "z")[chosen])
    truth = MODULES.to_local(module, points(event.truth, "tx", "ty", "tz")[chosen])
    residual = (found - truth)[:, :2] / MODULES.pitch[module]  # in cells
    assert np.abs(np.median(residual, axis=0)).max() < 0.05
    width = 0.5 * np.subtract(*np.percentile(residual, [84, 16], axis=0))
    assert (width < 1.25 * 0.34).all()  # half the central 68 % of a uniform cell is 0.34
    assert (width > 0.02).all()


def test_positions_are_made_from_the_cells(event: RawEvent) -> None:
    module = modules_of(event)
    row = np.searchsorted(event.hits["hit_id"], event.cells["hit_id"])
    for i in np.random.default_rng(0).choice(len(module), 300, replace=False):
        mine = row == i
        weight = event.cells["value"][mine].astype(float)
        channel = np.stack([event.cells["ch0"][mine], event.cells["ch1"][mine]], axis=-1)
        m = module[i]
        corner = np.array([MODULES.half_u[m].max(), MODULES.half_v[m]])
        centre = np.average(channel + 0.5, axis=0, weights=weight) * MODULES.pitch[m] - corner
        point = points(event.hits, "x", "y", "z")[i : i + 1]
        local = MODULES.to_local(np.array([m]), point)[0, :2]
        assert_allclose(local, centre, atol=1e-3)


def test_every_hit_has_cells_within_its_module(event: RawEvent) -> None:
    assert set(event.cells["hit_id"]) == set(event.hits["hit_id"])
    module = modules_of(event)[np.searchsorted(event.hits["hit_id"], event.cells["hit_id"])]
    size = 2 * np.stack([MODULES.half_u[module].max(axis=1), MODULES.half_v[module]], axis=-1)
    channel = np.stack([event.cells["ch0"], event.cells["ch1"]], axis=-1)
    assert (channel >= 0).all()
    assert (channel < np.rint(size / MODULES.pitch[module])).all()
    assert (event.cells["value"] > 0).all()


def test_nhits_counts_the_hits_of_each_particle(event: RawEvent) -> None:
    count = Counter(event.truth["particle_id"].tolist())
    expected = [count[p] for p in event.particles["particle_id"].tolist()]
    assert event.particles["nhits"].tolist() == expected
    assert 0 in expected  # particles without hits stay in the table


def test_an_event_depends_on_seed_and_number_only() -> None:
    config = TrackerConfig(num_particles=50)
    first = simulate_event(config, 5)
    simulate_event(config, 4)
    again = simulate_event(config, 5)
    for table in ("hits", "cells", "particles", "truth"):
        for name, column in getattr(first, table).items():
            np.testing.assert_array_equal(column, getattr(again, table)[name])
    for other in (simulate_event(config, 6), simulate_event(TrackerConfig(50, seed=1), 5)):
        assert not np.array_equal(first.particles["px"], other.particles["px"])


@pytest.mark.parametrize("num", [50, 2000])
def test_multiplicity_is_configurable(num: int) -> None:
    event = simulate_event(TrackerConfig(num_particles=num), 0)
    assert len(event.particles["particle_id"]) == num
    assert 8 * num < len(event.hits["hit_id"]) < 15 * num


def test_noise_has_its_share_of_the_hits() -> None:
    config = TrackerConfig(num_particles=200)
    truth = [simulate_event(config, number).truth for number in range(10)]
    noise = np.concatenate([t["particle_id"] == 0 for t in truth])
    assert noise.mean() == pytest.approx(0.15, abs=0.01)


def test_without_noise_every_hit_has_a_particle() -> None:
    truth = simulate_event(TrackerConfig(num_particles=50, noise_fraction=0.0), 0).truth
    assert (truth["particle_id"] != 0).all()


def test_weights_sum_to_one_and_vanish_for_noise_and_short_tracks(event: RawEvent) -> None:
    weight, particle = event.truth["weight"], event.truth["particle_id"]
    assert weight.sum(dtype=float) == pytest.approx(1.0, abs=1e-5)
    assert (weight[particle == 0] == 0).all()
    nhits = dict(
        zip(event.particles["particle_id"].tolist(), event.particles["nhits"], strict=True)
    )
    num = np.array([nhits.get(p, 0) for p in particle.tolist()])
    assert (weight[num <= 3] == 0).all()
    assert (weight[num > 3] > 0).all()


def weigh(pt: float, num: int, other_pt: float = 1.0) -> np.ndarray:
    """Weights of a particle's hits in order, beside another particle with five hits."""
    counts = [num, 5]
    momentum = np.array([[pt, 0.0, 1.0], [0.0, other_pt, 1.0]])
    none = np.zeros(0)
    particles = Particles(none, none, none, momentum, np.ones(2), none)
    particle = np.repeat([0, 1], counts)
    arc = np.concatenate([np.arange(c) for c in counts])
    hits = ModuleHits(particle, none, arc, none, none, none, none)
    return hit_weights(hits, particles)[particle == 0]


def test_first_and_last_hits_weigh_more() -> None:
    assert_allclose(weigh(1.0, 5) / weigh(1.0, 5)[2], [10 / 3, 2, 1, 1, 2])


def test_weight_grows_with_pt_between_half_and_three_gev() -> None:
    total = {pt: weigh(pt, 9).sum() for pt in (0.2, 0.5, 1.75, 3.0, 50.0)}
    share = {pt: t / (1 - t) for pt, t in total.items()}  # to the other particle's
    assert share[0.2] == pytest.approx(share[0.5])
    assert share[1.75] == pytest.approx(3 * share[0.5])
    assert share[3.0] == pytest.approx(5 * share[0.5])
    assert share[50.0] == pytest.approx(share[3.0])


@pytest.mark.data
def test_weights_are_those_of_the_challenge(data_dir: Path) -> None:
    tables = read_real_event(data_dir / "trackml")
    truth, particles = tables["truth"], tables["particles"]
    agree = []
    for i, identity in enumerate(particles["particle_id"]):
        mine = np.flatnonzero(truth["particle_id"] == identity)
        weight = truth["weight"][mine]
        if weight.sum() == 0:
            continue
        start = np.array([particles[c][i] for c in ("vx", "vy", "vz")])
        order = np.argsort(np.linalg.norm(points(truth, "tx", "ty", "tz")[mine] - start, axis=1))
        expected = weigh(np.hypot(particles["px"][i], particles["py"][i]), len(mine))
        shape = weight[order] / weight.sum()
        agree.append(np.allclose(shape, expected / expected.sum(), rtol=1e-3))
    assert len(agree) > 300
    assert np.mean(agree) > 0.98  # loops confuse the order by distance
