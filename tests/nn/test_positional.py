"""Positional encodings follow their formula and respect the period of angles."""

import math

import pytest
import torch
from torch.testing import assert_close

from hepattn.nn.positional import Coordinate, SinusoidalEncoding


def formula(x: float, dim: int, kind: str, alpha: float, base: float) -> list[float]:
    frequencies = [alpha * base ** (i * (2 / dim - 1) / (dim / 2 - 1)) for i in range(dim // 2)]
    if kind == "harmonic":
        frequencies = [max(1, round(w)) for w in frequencies]
    if kind == "circle":
        sines = [math.sin(w * math.sin(x)) for w in frequencies]
        return sines + [math.sin(w * math.cos(x)) for w in frequencies]
    return [math.sin(w * x) for w in frequencies] + [math.cos(w * x) for w in frequencies]


def test_encoding_follows_the_formula_for_each_coordinate() -> None:
    coordinates = [
        Coordinate("phi", kind="circle"),
        Coordinate("z", scale=0.5),
        Coordinate("phi", kind="harmonic"),
    ]
    encode = SinusoidalEncoding(24, coordinates, alpha=10.0, base=50.0)
    out = encode(torch.tensor([[[2.0, 0.6, -1.0]]]))[0, 0]
    expected = formula(2.0, 8, "circle", 10.0, 50.0) + formula(0.3, 8, "open", 10.0, 50.0)
    expected += formula(-1.0, 8, "harmonic", 10.0, 50.0)
    assert_close(out, torch.tensor(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["circle", "harmonic"])
def test_an_angle_does_not_jump_at_pi(kind: str) -> None:
    encode = SinusoidalEncoding(32, [Coordinate("phi", kind=kind)])
    below, above = torch.tensor([[[math.pi - 1e-6]]]), torch.tensor([[[-math.pi + 1e-6]]])
    assert_close(encode(below), encode(above), atol=5e-3, rtol=0)


def test_dot_products_of_harmonics_depend_on_differences_of_angles_only() -> None:
    encode = SinusoidalEncoding(32, [Coordinate("phi", kind="harmonic")])
    phi = torch.tensor([[[-3.0], [-2.9], [1.0], [1.1], [3.1], [3.2 - 2 * math.pi]]])
    products = encode(phi)[0, 0::2] * encode(phi)[0, 1::2]
    assert_close(products.sum(-1), products[0].sum().expand(3), atol=2e-3, rtol=0)


def test_open_coordinate_tells_the_ends_apart() -> None:
    encode = SinusoidalEncoding(32, [Coordinate("eta")])
    ends = torch.tensor([[[math.pi], [-math.pi]]])
    assert (encode(ends)[0, 0] - encode(ends)[0, 1]).abs().max() > 0.5


def test_what_does_not_divide_stays_zero() -> None:
    encode = SinusoidalEncoding(15, [Coordinate("x"), Coordinate("y")])
    out = encode(torch.rand(2, 3, 2))
    assert out.shape == (2, 3, 15)
    assert (out[..., 12:] == 0).all()
    assert (out[..., :12] != 0).all()


def test_too_few_features_for_the_coordinates_are_refused() -> None:
    with pytest.raises(ValueError, match="dim=3 must hold two features for each of 2"):
        SinusoidalEncoding(3, [Coordinate("x"), Coordinate("y")])


def test_a_scaled_angle_is_refused() -> None:
    with pytest.raises(ValueError, match="would break its period"):
        Coordinate("phi", scale=2.0, kind="circle")
