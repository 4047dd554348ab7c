import numpy as np
import pytest
from numpy.testing import assert_allclose

from hepattn.simulate.jets import CLASSES, JetConfig, resonances
from hepattn.simulate.jets.kinematics import mass_of
from hepattn.simulate.jets.particles import Particles, summed
from hepattn.simulate.jets.resonances import MASS, WIDTH, decay_of
from hepattn.simulate.jets.shower import generate, lab_decay, within_cone

NUM = 100


@pytest.mark.parametrize("name", CLASSES[1:])
def test_decays_conserve_the_momentum_of_the_resonance(name: str) -> None:
    mass, event = decay_of(name, NUM, np.random.default_rng(0))
    expected = np.column_stack([mass, np.zeros((NUM, 3))])
    assert_allclose(summed(event.hadrons, NUM), expected, atol=1e-6)


@pytest.mark.parametrize("name", CLASSES[1:])
def test_resonances_have_their_masses(name: str) -> None:
    mass, _ = decay_of(name, NUM, np.random.default_rng(0))
    kind = "t" if name.startswith("T") else name[0]
    assert np.median(mass) == pytest.approx(MASS[kind], abs=0.5 * WIDTH[kind])


def test_top_quarks_hold_a_w() -> None:
    _, event = decay_of("Tbqq", NUM, np.random.default_rng(0))
    assert np.median(mass_of(event.partons[:, 1:].sum(axis=1))) == pytest.approx(80.4, abs=1.0)


@pytest.mark.parametrize("name", ["QCD", "Wqq"])
def test_jets_have_the_momentum_asked_for(name: str) -> None:
    pt = np.full(NUM, 600.0)
    total = summed(lab_decay(name, pt, np.random.default_rng(0)).hadrons, NUM)
    energy = total[:, 0] if name == "QCD" else total[:, 1]
    assert_allclose(energy, pt, rtol=1e-6)
    assert_allclose(total[:, 2:], 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "legs"), [("QCD", 1), ("Zqq", 2), ("Hqql", 3), ("H4q", 4), ("Tbqq", 3), ("Tbl", 2)]
)
def test_jets_know_what_they_must_hold(name: str, legs: int) -> None:
    _, partons = generate(name, 10, JetConfig(), np.random.default_rng(0))
    assert partons.shape == (10, legs, 4)


def test_particles_outside_the_cone_are_not_of_the_jet() -> None:
    phi = np.array([0.0, 0.1, 1.5])
    pt = np.array([100.0, 50.0, 1.0])
    momentum = np.column_stack([pt, pt * np.cos(phi), pt * np.sin(phi), np.zeros(3)])
    particles = Particles(np.zeros(3, int), np.full(3, 22), momentum, np.zeros((3, 3)))
    assert within_cone(particles, 1, 0.8).tolist() == [True, True, False]


@pytest.mark.parametrize(("name", "codes"), [("q", {1, 2, 3, 4, 5}), ("g", {21})])
def test_quark_and_gluon_jets_start_with_their_parton(
    name: str, codes: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    original = resonances.shower

    def spy(flavour: np.ndarray, *rest: object) -> object:
        seen.update(np.abs(flavour).tolist())
        return original(flavour, *rest)

    monkeypatch.setattr(resonances, "shower", spy)
    lab_decay(name, np.full(NUM, 600.0), np.random.default_rng(0))
    assert seen == codes
