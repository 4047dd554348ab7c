"""Four-vectors against the formulas of textbooks, one number at a time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from hepattn.physics.four_vector import (
    azimuth,
    boost_along_z,
    delta_phi,
    from_pt_eta_phi_energy,
    mass,
    pseudorapidity,
    rapidity,
    rotate_about_z,
    transverse_momentum,
)

FEW = settings(max_examples=40, deadline=None)
MOMENTA = st.tuples(*[st.floats(-100, 100)] * 3)
ANGLES = st.floats(-10, 10)


def vector(momentum: tuple[float, float, float], of_mass: float) -> Tensor:
    energy = math.hypot(*momentum, of_mass)
    return torch.tensor([energy, *momentum], dtype=torch.float64)


@FEW
@given(MOMENTA, st.floats(0.1, 10))
def test_quantities_are_those_of_the_textbook(
    momentum: tuple[float, float, float], of_mass: float
) -> None:
    px, py, pz = momentum
    p = vector(momentum, of_mass)
    energy = p[0].item()
    assert transverse_momentum(p).item() == pytest.approx(math.hypot(px, py))
    assert azimuth(p).item() == pytest.approx(math.atan2(py, px))
    assert rapidity(p).item() == pytest.approx(math.atanh(pz / energy), rel=1e-6, abs=1e-9)
    assert mass(p).item() == pytest.approx(of_mass, rel=1e-4)
    if math.hypot(px, py) > 1e-6:
        expected = math.asinh(pz / math.hypot(px, py))
        assert pseudorapidity(p).item() == pytest.approx(expected)


@FEW
@given(MOMENTA, st.floats(0.1, 10), st.floats(-2, 2))
def test_boosts_shift_rapidity_and_nothing_else(
    momentum: tuple[float, float, float], of_mass: float, shift: float
) -> None:
    p = vector(momentum, of_mass)
    boosted = boost_along_z(p, shift)
    assert_close(rapidity(boosted), rapidity(p) + shift, atol=1e-6, rtol=1e-6)
    assert_close(boosted[1:3], p[1:3])
    assert_close(mass(boosted), mass(p), atol=1e-4, rtol=1e-3)


@FEW
@given(MOMENTA, st.floats(-3, 3))
def test_rotations_turn_the_azimuth_and_nothing_else(
    momentum: tuple[float, float, float], angle: float
) -> None:
    p = vector(momentum, 1.0)
    turned = rotate_about_z(p, angle)
    assert_close(turned[[0, 3]], p[[0, 3]])
    assert_close(transverse_momentum(turned), transverse_momentum(p))
    if transverse_momentum(p) > 1e-6:
        apart = delta_phi(azimuth(turned), azimuth(p) + angle)
        assert apart.abs().item() < 1e-6


@FEW
@given(ANGLES, ANGLES)
def test_differences_of_azimuth_are_wrapped(a: float, b: float) -> None:
    found = delta_phi(*torch.tensor([a, b], dtype=torch.float64)).item()
    assert -math.pi <= found <= math.pi
    assert math.cos(found) == pytest.approx(math.cos(a - b), abs=1e-9)
    assert math.sin(found) == pytest.approx(math.sin(a - b), abs=1e-9)


@FEW
@given(st.floats(0.1, 100), st.floats(-3, 3), st.floats(-3, 3))
def test_collider_coordinates_make_the_vector_that_has_them(
    pt: float, eta: float, phi: float
) -> None:
    columns = [torch.tensor(x, dtype=torch.float64) for x in (pt, eta, phi)]
    p = from_pt_eta_phi_energy(*columns, columns[0] * columns[1].cosh())
    found = [transverse_momentum(p), pseudorapidity(p), azimuth(p), mass(p)]
    for x, expected in zip(found, (pt, eta, phi, 0.0), strict=True):
        assert x.item() == pytest.approx(expected, abs=1e-4)


def test_padding_and_particles_along_the_beam_are_finite() -> None:
    p = torch.tensor([[0.0, 0, 0, 0], [5, 0, 0, 5], [5, 0, 0, -5]], requires_grad=True)
    for quantity in (transverse_momentum, azimuth, rapidity, pseudorapidity, mass):
        assert quantity(p).isfinite().all()
        (gradient,) = torch.autograd.grad(quantity(p).sum(), p)
        assert gradient.isfinite().all(), quantity
    assert rapidity(p)[0] == 0


@FEW
@given(MOMENTA, st.floats(0.1, 10))
def test_gradients_are_those_of_finite_differences(
    momentum: tuple[float, float, float], of_mass: float
) -> None:
    p = vector((momentum[0] + 101, *momentum[1:]), of_mass).requires_grad_()
    for quantity in (transverse_momentum, azimuth, rapidity, pseudorapidity, mass):
        assert torch.autograd.gradcheck(quantity, p, atol=1e-4, rtol=1e-3)
