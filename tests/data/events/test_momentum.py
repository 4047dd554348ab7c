"""Four-vectors from the columns of a file."""

import math

import numpy as np
import pytest

from hepattn.data.events import Momentum
from hepattn.data.events.momentum import DERIVED, derive

NAMES = {"pt": "p", "eta": "e", "phi": "f"}


@pytest.mark.parametrize(
    "momentum",
    [
        Momentum(**NAMES, mass="m"),
        Momentum(**NAMES, energy="E"),
        Momentum(px="x", py="y", pz="z", energy="E"),
    ],
)
def test_every_set_of_columns_gives_the_same_vectors(momentum: Momentum) -> None:
    rng = np.random.default_rng(0)
    columns = {name: rng.uniform(0.1, 3, (2, 3)) for name in "pefm"}
    expected = np.zeros((2, 3, 4))
    for place in np.ndindex(2, 3):
        pt, eta, phi, mass = (columns[name][place] for name in "pefm")
        x, y, z = (
            pt * math.cos(phi),
            pt * math.sin(phi),
            pt / math.tan(2 * math.atan(math.exp(-eta))),
        )
        expected[place] = math.sqrt(x * x + y * y + z * z + mass * mass), x, y, z
    columns |= dict(zip("Exyz", np.moveaxis(expected, -1, 0), strict=True))
    assert momentum.columns <= set(columns)
    assert np.allclose(momentum.vectors(columns), expected, rtol=1e-12)


def test_a_constant_mass_is_in_gev_whatever_the_unit_of_the_columns() -> None:
    momentum = Momentum(**NAMES, mass=0.105658, scale=0.001)
    columns = {"p": np.array([[20_000.0]]), "e": np.array([[1.0]]), "f": np.array([[2.0]])}
    vectors = momentum.vectors(columns)
    assert derive(vectors, "pt").item() == pytest.approx(20, rel=1e-12)
    assert derive(vectors, "mass").item() == pytest.approx(0.105658, rel=1e-6)


def test_columns_that_a_file_lacks_are_made_of_the_vectors() -> None:
    columns = {"p": np.array([[3.0]]), "e": np.array([[-1.2]]), "f": np.array([[2.5]])}
    vectors = Momentum(**NAMES, mass=2.0).vectors(columns)
    made = {name: derive(vectors, name).item() for name in DERIVED}
    assert [made[name] for name in ("pt", "eta", "phi", "mass")] == pytest.approx([3, -1.2, 2.5, 2])
    assert [made[name] for name in ("energy", "px", "py", "pz")] == vectors[0, 0].tolist()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"px": "x", "py": "y", "pz": "z"},
        {"pt": "p", "eta": "e", "phi": "f"},
        {"pt": "p", "eta": "e", "phi": "f", "mass": 0.0, "energy": "E"},
        {"px": "x", "py": "y", "pz": "z", "energy": "E", "pt": "p"},
    ],
)
def test_incomplete_and_double_columns_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be from px, py, pz, energy, or from pt, eta, phi"):
        Momentum(**options)


def test_masses_and_scales_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="mass=-1 must not be negative"):
        Momentum(**NAMES, mass=-1)
    with pytest.raises(ValueError, match="scale=0 must be positive"):
        Momentum(**NAMES, mass=1.0, scale=0)
