"""Figures of generated jets against other implementations and on samples of known distance."""

import numpy as np
import pytest
from scipy import linalg
from scipy.optimize import linprog
from scipy.stats import wasserstein_distance

from hepattn.metrics.energy_mover import coverage_and_matching, energy_movers_distances
from hepattn.metrics.jets import (
    JetSample,
    fpd,
    frechet_distance,
    kpd,
    w1_efps,
    w1_mass,
    w1_multiplicity,
    w1_particles,
)


def draw(num: int, seed: int, spread: float = 0.1) -> JetSample:
    rng = np.random.default_rng(seed)
    counts = rng.integers(4, 9, num)
    valid = np.arange(8) < counts[:, None]
    particles = np.concatenate(
        [spread * rng.normal(size=(num, 8, 2)), rng.exponential(size=(num, 8, 1))], -1
    )
    particles[..., 2] *= valid
    particles[..., 2] /= particles[..., 2].sum(1, keepdims=True)
    particles[~valid] = 0
    return JetSample(particles, valid, rng.normal(0.2, 0.05, num))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_w1_is_near_that_of_the_whole_samples_and_grows_with_a_shift() -> None:
    first, second = draw(3000, 1), draw(3000, 2)
    moved = JetSample(second.particles, second.valid, second.mass + 0.1)
    found = w1_mass(first, moved, rng())
    assert found.value == pytest.approx(wasserstein_distance(first.mass, moved.mass), rel=0.03)
    assert w1_mass(first, second, rng()).value < 0.1 * found.value
    assert 0 < found.error < 0.01


def test_w1_of_particles_leaves_padding_out() -> None:
    first, second = draw(500, 1), draw(500, 2)
    mean, columns = w1_particles(first, second, rng())
    assert mean.value == pytest.approx(np.mean([c.value for c in columns]))
    filled = second.particles.copy()
    filled[~second.valid] = 9.0
    again, _ = w1_particles(first, JetSample(filled, second.valid, second.mass), rng())
    assert again == mean


def test_wider_jets_have_other_polynomials_and_as_many_particles() -> None:
    first, same, wide = draw(1000, 1), draw(1000, 2), draw(1000, 3, spread=0.15)
    assert w1_efps(first, wide, rng()).value > 5 * w1_efps(first, same, rng()).value
    assert w1_multiplicity(first, wide, rng()).value < 0.2


def test_first_polynomials_are_sums_of_shares_and_distances() -> None:
    sample = draw(5, 1)
    efps = sample.efps()
    assert efps.shape == (5, 36)
    z, place = sample.particles[..., 2], sample.particles[..., :2]
    theta = np.linalg.norm(place[:, :, None] - place[:, None], axis=-1)
    np.testing.assert_allclose(efps[:, 0], z.sum(1), rtol=1e-5)
    np.testing.assert_allclose(efps[:, 1], np.einsum("bi,bj,bij->b", z, z, theta), rtol=1e-4)


def test_frechet_distance_is_that_with_the_root_of_the_matrix() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 200, 4))
    b = b * 1.5 + 0.3
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(a.mean(0) - b.mean(0)).sum()
    expected += np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_fpd_and_kpd_are_near_zero_at_truth_and_grow_with_a_shift() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 4000, 3))
    for metric, options in ((fpd, {"num_batches": 3}), (kpd, {"batch_size": 1000})):
        same = metric(a, b, rng(), **options)
        values = [metric(a, b + shift, rng(), **options).value for shift in (0.5, 1.0)]
        assert abs(same.value) < 0.1 * values[0] < 0.1 * values[1]


def test_energy_movers_distance_is_the_cheapest_transport() -> None:
    first, second = draw(1, 1), draw(1, 2)
    found = energy_movers_distances(first, second, num_quanta=200)[0, 0]
    a, b = (x.particles[0, x.valid[0]] for x in (first, second))
    cost = np.linalg.norm(a[:, None, :2] - b[None, :, :2], axis=-1)
    m, n = cost.shape
    equal = np.concatenate([np.kron(np.eye(m), np.ones(n)), np.kron(np.ones(m), np.eye(n))])
    masses = np.concatenate([a[:, 2], b[:, 2]])
    exact = linprog(cost.ravel(), A_eq=equal[:-1], b_eq=masses[:-1]).fun
    assert found == pytest.approx(exact, rel=0.03)


def test_a_sample_covers_itself() -> None:
    sample = draw(30, 1)
    coverage, matching = coverage_and_matching(sample, sample, rng(), num_jets=30, num_batches=1)
    assert coverage.value == 1.0
    assert matching.value == 0.0
    few = sample.take(np.zeros(30, int))
    assert coverage_and_matching(sample, few, rng(), 30, 1)[0].value == pytest.approx(1 / 30)
