import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hepattn.physics.helix import (
    Helix,
    arcs_to_cylinder,
    arcs_to_plane,
    direction,
    make_helix,
    path_per_arc,
    position,
)

SPEED_OF_LIGHT = 299_792_458.0


def one_helix(vertex: tuple, momentum: tuple, charge: int, field: float = 2.0) -> Helix:
    return make_helix(np.array([vertex]), np.array([momentum]), np.array([charge]), field)


def integrate_lorentz_force(
    vertex: tuple, momentum: tuple, charge: int, field: float, path: float, num_steps: int = 400
) -> tuple[np.ndarray, np.ndarray]:
    """Runge-Kutta (fourth order) in SI units: position in m, momentum as p c / e in volts."""
    size = np.linalg.norm(momentum)
    b = np.array([0.0, 0.0, field])

    def slope(state: np.ndarray) -> np.ndarray:
        unit = state[3:] / np.linalg.norm(state[3:])
        return np.concatenate([unit, charge * SPEED_OF_LIGHT * np.cross(unit, b)])

    state = np.concatenate([np.array(vertex) * 1e-3, np.array(momentum) * 1e9])
    step = path * 1e-3 / num_steps
    for _ in range(num_steps):
        k1 = slope(state)
        k2 = slope(state + 0.5 * step * k1)
        k3 = slope(state + 0.5 * step * k2)
        k4 = slope(state + step * k3)
        state = state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return state[:3] * 1e3, state[3:] / (size * 1e9)


@pytest.mark.parametrize("charge", [-1, 1])
@pytest.mark.parametrize("momentum", [(0.2, -0.1, 0.4), (-1.5, 2.0, -8.0)])
def test_helix_follows_the_lorentz_force(charge: int, momentum: tuple) -> None:
    vertex, field, arc = (10.0, -3.0, 40.0), 2.0, 600.0
    helix = one_helix(vertex, momentum, charge, field)
    path = arc * path_per_arc(helix)[0]
    point, tangent = integrate_lorentz_force(vertex, momentum, charge, field, path)
    assert_allclose(position(helix, arc)[0], point, atol=1e-6)
    assert_allclose(direction(helix, arc)[0], tangent, atol=1e-9)


def test_quarter_turn_of_a_positive_particle_is_clockwise() -> None:
    radius = 1.0 / (0.299792458 * 2.0) * 1000  # pT = 1 GeV in 2 T, in mm
    helix = one_helix((0.0, 0.0, 0.0), (1.0, 0.0, 0.5), 1)
    quarter = radius * math.pi / 2
    assert_allclose(position(helix, quarter)[0], [radius, -radius, 0.5 * quarter], rtol=1e-12)
    assert_allclose(direction(helix, quarter)[0] * math.sqrt(1.25), [0, -1, 0.5], atol=1e-12)


def test_a_neutral_particle_flies_straight() -> None:
    helix = one_helix((1.0, 2.0, 3.0), (3.0, 4.0, 1.0), 0)
    assert_allclose(position(helix, 10.0)[0], [7.0, 10.0, 5.0])
    assert_allclose(np.sort(arcs_to_cylinder(helix, np.array([50.0]))[0, 0]), [-52.2, 47.8], 2e-3)


@settings(derandomize=True, deadline=None)
@given(
    st.floats(-300, 300),
    st.floats(-300, 300),
    st.floats(-3, 3),
    st.floats(0.1, 20),
    st.sampled_from([-1, 1]),
    st.floats(20, 1000),
)
def test_crossings_of_a_cylinder_are_all_of_them(
    x: float, y: float, phi: float, pt: float, charge: int, radius: float
) -> None:
    assume(abs(math.hypot(x, y) - radius) > 0.1)
    helix = one_helix((x, y, 0.0), (pt * math.cos(phi), pt * math.sin(phi), 0.3), charge)
    arcs = arcs_to_cylinder(helix, np.array([radius]))[0, 0]
    found = np.sort(arcs[np.isfinite(arcs)])
    for arc in found:
        assert math.hypot(*position(helix, arc)[0, :2]) == pytest.approx(radius, abs=1e-5)
    full_turn = 2 * math.pi / abs(helix.curvature[0])
    steps = np.linspace(1e-9, full_turn * (1 - 1e-9), 4001)
    track = position(helix.take(np.zeros(len(steps), int)), steps)
    outside = np.hypot(track[:, 0], track[:, 1]) > radius
    scanned = steps[1:][outside[1:] != outside[:-1]]
    if len(found) == len(scanned):  # a scan misses a pair of crossings closer than its step
        assert_allclose(found, scanned, atol=1.01 * full_turn / 4000)
    else:
        assert len(scanned) == 0
        assert found[1] - found[0] < 1.01 * full_turn / 4000


def test_planes_behind_the_vertex_have_negative_arcs() -> None:
    helix = one_helix((0.0, 0.0, 100.0), (1.0, 0.0, 2.0), 1)
    assert_allclose(arcs_to_plane(helix, np.array([300.0, -300.0]))[0], [100.0, -200.0])
