"""Particles relative to their jet, there and back."""

import torch
from torch.testing import assert_close

from hepattn.physics.four_vector import mass, rotate_about_z, transverse_momentum
from hepattn.physics.jet_shape import from_relative, relative_mass, relative_particles


def draw_jets() -> tuple[torch.Tensor, torch.Tensor]:
    pt = torch.rand(4, 6, dtype=torch.float64)
    eta, phi = 0.4 * torch.randn(2, 4, 6, dtype=torch.float64)
    valid = torch.arange(6) < torch.tensor([[6], [3], [1], [0]])
    one, zero = torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    return from_relative(eta, phi, pt * valid, 500 * one, 0.7 * one, 3.0 + zero), valid


def test_particles_come_back_from_their_relative_columns() -> None:
    vectors, valid = draw_jets()
    seen = relative_particles(vectors, valid)
    jet = relative_particles(seen.jet.unsqueeze(1), valid[:, :1]).jet
    eta = torch.asinh(jet[:, 3] / transverse_momentum(jet).clamp(min=1e-8))
    phi = torch.atan2(jet[:, 2], jet[:, 1])
    back = from_relative(seen.eta, seen.phi, seen.pt, transverse_momentum(jet), eta, phi)
    assert_close(back, vectors)
    assert (seen.columns()[~valid] == 0).all()


def test_columns_do_not_change_when_jets_are_turned_about_the_beam() -> None:
    vectors, valid = draw_jets()
    moved = rotate_about_z(vectors, 2.0)
    columns = relative_particles(vectors, valid).columns()
    assert_close(relative_particles(moved, valid).columns(), columns)


def test_relative_mass_is_mass_over_transverse_momentum() -> None:
    vectors, valid = draw_jets()
    jet = vectors.sum(1)
    assert_close(relative_mass(vectors, valid)[:3], (mass(jet) / transverse_momentum(jet))[:3])
    assert relative_mass(vectors, valid)[3] == 0


def test_gradients_are_finite_for_empty_jets() -> None:
    vectors, valid = draw_jets()
    vectors.requires_grad_()
    (
        relative_particles(vectors, valid).columns().sum() + relative_mass(vectors, valid).sum()
    ).backward()
    assert vectors.grad.isfinite().all()
    assert (vectors.grad[~valid] == 0).all()
