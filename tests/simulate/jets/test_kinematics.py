import numpy as np
from numpy.testing import assert_allclose

from hepattn.simulate.jets.kinematics import boost, decay, isotropic, mass_of, rotate


def random_momenta(num: int, mass: float, rng: np.random.Generator) -> np.ndarray:
    vectors = rng.normal(0.0, 20.0, (num, 3))
    return np.column_stack([np.sqrt((vectors**2).sum(-1) + mass**2), vectors])


def test_boost_is_the_lorentz_matrix() -> None:
    rng = np.random.default_rng(0)
    momentum, frame = random_momenta(1, 1.0, rng), random_momenta(1, 5.0, rng)
    gamma = frame[0, 0] / 5.0
    beta = frame[0, 1:] / frame[0, 0]
    matrix = np.empty((4, 4))
    matrix[0, 0] = gamma
    matrix[0, 1:] = matrix[1:, 0] = gamma * beta
    matrix[1:, 1:] = np.eye(3) + (gamma - 1) * np.outer(beta, beta) / (beta @ beta)
    assert_allclose(boost(momentum, frame)[0], matrix @ momentum[0], rtol=1e-12)


def test_rotation_takes_the_z_axis_to_the_given_one_and_keeps_angles() -> None:
    rng = np.random.default_rng(0)
    axis = np.concatenate([isotropic(20, rng), [[0, 0, 1.0], [0, 0, -1.0]]])
    z = np.tile([0.0, 0.0, 1.0], (len(axis), 1))
    assert_allclose(rotate(z, axis), axis, atol=1e-14)
    one, two = rng.normal(size=(2, len(axis), 3))
    kept = (rotate(one, axis) * rotate(two, axis)).sum(-1)
    assert_allclose(kept, (one * two).sum(-1), atol=1e-12)


def test_decays_conserve_momentum_and_give_the_masses() -> None:
    rng = np.random.default_rng(0)
    parent = random_momenta(50, 5.28, rng)
    masses = np.array([1.87, 0.14, 0.14, 0.135])
    daughters = decay(parent, masses, rng)
    assert_allclose(daughters.sum(axis=1), parent, rtol=1e-10, atol=1e-10)
    assert_allclose(mass_of(daughters), np.tile(masses, (50, 1)), atol=1e-5)
