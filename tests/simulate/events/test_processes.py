import numpy as np
import pytest
from numpy.testing import assert_allclose

from hepattn.simulate.events.config import PROCESSES
from hepattn.simulate.events.processes import (
    GENERATORS,
    MASS,
    MAX_CHI,
    WIDTH,
    Legs,
    breit_wigner,
    falling,
)
from hepattn.simulate.jets.kinematics import mass_of

NUM = 1000


def legs_of(name: str, num: int = NUM) -> Legs:
    return GENERATORS[name].legs(num, np.random.default_rng(0))


def mass_by_place(legs: Legs, *places: int) -> np.ndarray:
    return mass_of(legs.momentum[:, list(places)].sum(1))


def test_every_process_has_a_generator_in_the_order_of_the_labels() -> None:
    assert tuple(GENERATORS) == PROCESSES


@pytest.mark.parametrize("name", PROCESSES)
def test_transverse_momentum_is_conserved(name: str) -> None:
    legs = legs_of(name)
    assert_allclose(legs.momentum[..., 1:3].sum(1), 0.0, atol=1e-7)
    assert (legs.momentum[legs.code == 0] == 0).all()


@pytest.mark.parametrize("name", PROCESSES)
def test_legs_are_massless(name: str) -> None:
    momentum = legs_of(name).momentum
    assert_allclose(mass_of(momentum) / (1.0 + momentum[..., 0]), 0.0, atol=1e-5)


@pytest.mark.parametrize("name", ["zjets", "zprime_to_ll"])
def test_lepton_pairs_are_neutral_and_of_one_flavour(name: str) -> None:
    codes = legs_of(name).code[:, :2]
    assert (codes.sum(1) == 0).all()
    assert set(np.abs(codes[:, 0])) == {11, 13}


@pytest.mark.parametrize(
    ("name", "particle"), [("x_to_bb", "X"), ("zprime_to_ll", "Z'"), ("wjets", "W")]
)
def test_pairs_have_the_mass_of_the_resonance(name: str, particle: str) -> None:
    mass = mass_by_place(legs_of(name), 0, 1)
    assert abs(np.median(mass) - MASS[particle]) < 0.15 * WIDTH[particle]
    assert np.abs(mass - MASS[particle]).max() < 5.001 * WIDTH[particle]


def test_the_top_partner_gives_three_jets_with_a_w_among_them() -> None:
    legs = legs_of("top_partner")  # spectator, b and the two quarks of the W
    three, two = mass_by_place(legs, 1, 2, 3), mass_by_place(legs, 2, 3)
    assert abs(np.median(three) - MASS["T"]) < 0.15 * WIDTH["T"]
    assert abs(np.median(two) - MASS["W"]) < 0.15 * WIDTH["W"]


def test_a_third_of_the_w_bosons_of_top_quarks_decay_into_leptons() -> None:
    legs = legs_of("ttbar", 4000)
    leptons = np.isin(np.abs(legs.code), (11, 13)).sum(1)
    assert_allclose(np.bincount(leptons, minlength=3) / 4000, [4 / 9, 4 / 9, 1 / 9], atol=0.03)
    assert abs(np.median(mass_by_place(legs, 0, 1, 2)) - MASS["t"]) < 0.2


def test_charge_is_conserved_in_leptons_and_neutrinos() -> None:
    codes = legs_of("wjets").code[:, :2]
    assert (codes[:, 0] * codes[:, 1] < 0).all()  # a lepton and an antineutrino, or the opposite
    assert (np.abs(codes[:, 1]) - np.abs(codes[:, 0]) == 1).all()


def test_resonances_follow_breit_and_wigner() -> None:
    mass = breit_wigner("X", 20_000, np.random.default_rng(0))
    inside = np.abs(mass - MASS["X"]) < 0.5 * WIDTH["X"]
    assert_allclose(inside.mean(), np.arctan(1.0) / np.arctan(10.0), atol=0.012)


def test_falling_masses_have_the_integral_of_the_power() -> None:
    values = falling(20_000, 200.0, 3000.0, 3.0, np.random.default_rng(0))
    assert values.min() >= 200.0
    assert values.max() <= 3000.0
    share = (200.0**-2 - 500.0**-2) / (200.0**-2 - 3000.0**-2)
    assert_allclose((values < 500.0).mean(), share, atol=0.01)


def test_dijets_are_flat_in_chi() -> None:
    legs = legs_of("qcd", 4000)
    rapidity = np.arctanh(legs.momentum[:, :2, 3] / legs.momentum[:, :2, 0])  # massless
    radiated = legs.code[:, 2:].any(1)  # a recoil tilts the axis
    chi = np.exp(np.abs(rapidity[:, 0] - rapidity[:, 1]))[~radiated]
    edges = np.linspace(1.0, MAX_CHI, 6)
    counts, _ = np.histogram(chi, edges)
    assert counts.sum() == len(chi)
    assert_allclose(counts / len(chi), 0.2, atol=0.05)
