import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepattn.physics.coordinates import (
    azimuth,
    cartesian,
    polar_angle,
    pseudorapidity,
    transverse,
)


@settings(derandomize=True, deadline=None)
@given(st.floats(0.1, 100), st.floats(-5, 5), st.floats(-3.1, 3.1))
def test_cartesian_and_collider_coordinates_are_inverse(pt: float, eta: float, phi: float) -> None:
    x, y, z = cartesian(pt, eta, phi)
    assert transverse(x, y) == pytest.approx(pt)
    assert pseudorapidity(x, y, z) == pytest.approx(eta, abs=1e-12)
    assert azimuth(x, y) == pytest.approx(phi, abs=1e-12)


@pytest.mark.parametrize("eta", [-4.0, -0.3, 0.0, 2.5])
def test_pseudorapidity_is_minus_log_tan_half_theta(eta: float) -> None:
    theta = polar_angle(*cartesian(3.0, eta, 0.7))
    assert -math.log(math.tan(theta / 2)) == pytest.approx(eta, abs=1e-12)


def test_pseudorapidity_is_infinite_on_the_beam_axis() -> None:
    found = pseudorapidity(np.zeros(3), np.zeros(3), np.array([1.0, -1.0, 0.0]))
    np.testing.assert_array_equal(found, [np.inf, -np.inf, 0.0])
