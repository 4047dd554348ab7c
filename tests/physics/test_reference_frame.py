"""Frames of jets and the mass shell commute with boosts and rotations."""

import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.physics.four_vector import boost_along_z, mass_squared, rapidity, rotate_about_z
from hepattn.physics.reference_frame import (
    components,
    compose,
    jet_tetrad,
    minkowski_product,
    project_to_shell,
)


def turn(vectors: Tensor) -> Tensor:
    """Cycle the axes, z to x: a rotation."""
    return vectors[..., [0, 3, 1, 2]]


def move(vectors: Tensor) -> Tensor:
    """Boosts and rotations one after the other."""
    return turn(boost_along_z(rotate_about_z(turn(boost_along_z(vectors, 0.8)), 1.1), -0.5))


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, 4, dtype=torch.float64)


def draw_jet(*shape: int) -> Tensor:
    return project_to_shell(draw(*shape), torch.tensor([1.0, 0, 0, 0]).double(), mass=0.8)


def test_tetrad_is_orthonormal() -> None:
    tetrad = jet_tetrad(draw_jet(5))
    products = minkowski_product(tetrad.unsqueeze(-2), tetrad.unsqueeze(-3))
    assert_close(products, torch.diag(products.new_tensor([1, -1, -1, -1])).expand(5, 4, 4))


def test_components_are_what_the_frame_of_the_central_jet_sees() -> None:
    jet, vectors = draw_jet(3), draw(3, 6)
    phi = torch.atan2(jet[:, 2], jet[:, 1])
    seen = rotate_about_z(boost_along_z(vectors, -rapidity(jet)[:, None]), -phi[:, None])
    assert_close(components(vectors, jet_tetrad(jet)), seen)


def test_compose_inverts_components() -> None:
    tetrad, vectors = jet_tetrad(draw_jet(3)), draw(3, 6)
    assert_close(compose(components(vectors, tetrad), tetrad), vectors)


def test_components_are_invariant_under_boosts_and_rotations_of_both() -> None:
    tetrad, vectors = jet_tetrad(draw_jet(3)), draw(3, 6)
    assert_close(components(move(vectors), move(tetrad)), components(vectors, tetrad))


def test_projection_sets_the_energy_in_the_frame_of_its_time() -> None:
    vectors = draw(20)
    time = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    for mass in (0.0, 0.7):
        found = project_to_shell(vectors, time, mass)
        expected = (vectors[:, 1:].square().sum(-1) + mass**2).sqrt()
        assert_close(found[:, 0], expected)
        assert_close(found[:, 1:], vectors[:, 1:])


def test_projection_is_covariant_on_shell_and_has_positive_energy() -> None:
    vectors, time = draw(50), jet_tetrad(draw_jet(50))[:, 0]
    found = project_to_shell(vectors, time)
    assert_close(project_to_shell(move(vectors), move(time)), move(found), atol=1e-12, rtol=1e-12)
    assert mass_squared(found).abs().max() < 1e-10
    assert (found[:, 0] > 0).all()
    assert (move(found)[:, 0] > 0).all()


def test_projection_of_nothing_is_nothing_with_finite_gradients() -> None:
    vectors = torch.zeros(2, 4, requires_grad=True)
    found = project_to_shell(vectors, torch.tensor([1.0, 0, 0, 0]))
    found.sum().backward()
    assert (found == 0).all()
    assert vectors.grad.isfinite().all()
