import numpy as np
import pytest
from numpy.testing import assert_allclose

from hepattn.simulate.jets.decays import CHANNELS, decay_all
from hepattn.simulate.jets.particles import SPECIES, Particles, charges, masses, summed


def moving(code: int, num: int, pz: float = 30.0) -> Particles:
    momentum = np.zeros((num, 4))
    momentum[:, 3] = pz
    momentum[:, 0] = np.hypot(pz, SPECIES[abs(code)].mass)
    return Particles(np.arange(num), np.full(num, code), momentum, np.zeros((num, 3)))


@pytest.mark.parametrize("code", CHANNELS)
def test_channels_conserve_charge_and_fit_the_mass(code: int) -> None:
    shares = [share for share, _ in CHANNELS[code]]
    assert sum(shares) == pytest.approx(1.0)
    for _, daughters in CHANNELS[code]:
        codes = np.array(daughters)
        assert charges(codes).sum() == SPECIES[code].charge
        assert masses(codes).sum() < SPECIES[code].mass


@pytest.mark.parametrize("code", [521, -521, 4122, 310])
def test_decays_conserve_momentum_and_charge(code: int) -> None:
    parents = moving(code, 200)
    stable = decay_all(parents, np.random.default_rng(0))
    assert_allclose(summed(stable, 200), parents.momentum, rtol=1e-9, atol=1e-8)
    charge = np.bincount(stable.jet, charges(stable.pdg_id), 200)
    assert (charge == charges(parents.pdg_id)).all()


def test_only_stable_particles_are_left() -> None:
    stable = decay_all(moving(511, 200), np.random.default_rng(0))
    left = np.isin(np.abs(stable.pdg_id), [c for c in CHANNELS if c not in (310, 3122)])
    assert not left.any()


@pytest.mark.parametrize("code", [521, 421])
def test_flight_lengths_follow_the_lifetime(code: int) -> None:
    num = 4000
    stable = decay_all(moving(code, num), np.random.default_rng(0))
    first = np.full(num, np.inf)
    np.minimum.at(first, stable.jet, stable.vertex[:, 2])
    expected = SPECIES[code].lifetime * 30.0 / SPECIES[code].mass
    assert first.mean() == pytest.approx(expected, rel=0.06)  # four standard errors


def test_antiparticles_decay_into_antiparticles() -> None:
    negative = decay_all(moving(-211, 1), np.random.default_rng(0))
    assert negative.pdg_id.tolist() == [-211]
    leptons = decay_all(moving(-521, 500), np.random.default_rng(0)).pdg_id
    assert np.isin([11, 13], leptons).all()
