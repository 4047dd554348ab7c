import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hepattn.simulate.jets import CLASSES, JetConfig, make_jets
from hepattn.simulate.jets.detector import Jets, detect, impact_parameters
from hepattn.simulate.jets.kinematics import directions, mass_of
from hepattn.simulate.jets.particles import Particles


def tracks(num: int, pt: float, vertex: tuple[float, float, float]) -> Particles:
    momentum = np.tile([np.hypot(pt, 0.13957), pt, 0.0, 0.0], (num, 1))
    return Particles(np.arange(num), np.full(num, 211), momentum, np.tile(vertex, (num, 1)))


@pytest.fixture(scope="module")
def jets() -> Jets:
    return make_jets(JetConfig(), 600)


def per_jet(jets: Jets, values: np.ndarray, name: str) -> np.ndarray:
    label = np.repeat(jets.label, jets.num_particles)
    return values[label == CLASSES.index(name)]


def test_impact_parameters_are_distances_from_the_collision() -> None:
    # Along x, from 3 mm in y and 2 mm in z: it passes at exactly those distances.
    d0, d0_error, dz, dz_error = impact_parameters(
        tracks(2000, 50.0, (10.0, 3.0, 2.0)), np.random.default_rng(0)
    )
    for found, error, expected in ((d0, d0_error, -3.0), (dz, dz_error, 2.0)):
        pull = (found - expected) / error
        assert abs(pull.mean()) < 0.1
        assert pull.std() == pytest.approx(1.0, abs=0.06)


def test_neutral_particles_have_no_impact_parameter(jets: Jets) -> None:
    neutral = np.isin(jets.pdg_id, (22, 130))
    for column in (jets.d0, jets.d0_error, jets.dz, jets.dz_error):
        assert (column[neutral] == 0).all()
        assert (column[~neutral] != 0).all()


def test_b_jets_are_displaced_more_than_c_jets_and_those_more_than_light_ones(jets: Jets) -> None:
    charged = np.abs(jets.pdg_id) == 211
    displaced = np.where(charged, np.abs(jets.d0) > 5 * jets.d0_error, np.nan)
    b, c, light = (np.nanmean(per_jet(jets, displaced, name)) for name in ("Hbb", "Hcc", "Hgg"))
    assert b > 1.8 * c > 1.8 * 1.4 * light > 0


def test_jets_are_within_the_cuts_and_balanced(jets: Jets) -> None:
    pt = np.hypot(jets.momentum[:, 1], jets.momentum[:, 2])
    eta, _ = directions(jets.momentum)
    assert (pt >= 500).all()
    assert (pt < 1000).all()
    assert (np.abs(eta) < 2).all()
    assert_array_equal(np.bincount(jets.label), 60)


def test_jets_are_the_sum_of_their_particles_by_falling_pt(jets: Jets) -> None:
    start = np.cumsum(jets.num_particles) - jets.num_particles
    assert_allclose(np.add.reduceat(jets.particles, start), jets.momentum, rtol=1e-9)
    pt = np.hypot(jets.particles[:, 1], jets.particles[:, 2])
    rises = np.diff(pt) > 0
    assert np.isin(np.flatnonzero(rises) + 1, start).all()


def test_masses_follow_the_resonance(jets: Jets) -> None:
    mass = mass_of(jets.momentum)
    for name, low, high in (("Wqq", 75, 95), ("Zqq", 85, 105), ("Hbb", 110, 132)):
        assert low < np.median(mass[jets.label == CLASSES.index(name)]) < high


def test_leptons_are_found_where_a_w_decays_into_them(jets: Jets) -> None:
    pt = np.hypot(jets.particles[:, 1], jets.particles[:, 2])
    hard = np.isin(np.abs(jets.pdg_id), (11, 13)) & (pt > 20)
    assert per_jet(jets, hard, "Tbl").sum() > 5 * per_jet(jets, hard, "Wqq").sum()


def test_close_photons_merge_and_neutrinos_leave_nothing() -> None:
    direction = np.array([1.0, 0.5, 0.0])  # the middle of no cell's edge
    momentum = np.array([np.r_[np.linalg.norm(direction), direction]] * 3) * 20.0
    particles = Particles(np.zeros(3, int), np.array([22, 22, 12]), momentum, np.zeros((3, 3)))
    jets = detect(particles, 1, 0, np.random.default_rng(0))
    assert jets.pdg_id.tolist() == [22]
    assert jets.particles[0, 0] == pytest.approx(2 * momentum[0, 0], rel=0.1)
