"""Positional encodings follow their formula and respect the period of angles."""

import math

import pytest
import torch
from torch.testing import assert_close

from hepattn.nn.positional import (
    Coordinate,
    FourierEncoding,
    LearnedEncoding,
    SinusoidalEncoding,
    query_angles,
)


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


MIXED = [
    Coordinate("r", scale=0.5),
    Coordinate("a", kind="circle"),
    Coordinate("b", kind="harmonic"),
]


def test_random_features_follow_their_formula() -> None:
    encode = FourierEncoding(10, [Coordinate("x", scale=0.5), Coordinate("y")], sigma=2.0)
    x = torch.randn(1, 3, 2)
    phase = x @ (torch.tensor([[0.5], [1.0]]) * encode.frequencies)
    assert_close(encode(x), torch.cat([phase.sin(), phase.cos()], -1))
    wide = FourierEncoding(20000, [Coordinate("x")], sigma=2.0)
    assert abs(wide.frequencies.std() / (2 * math.pi * 2.0) - 1) < 0.03


@pytest.mark.parametrize("column", [1, 2])
def test_random_features_have_the_period_of_an_angle(column: int) -> None:
    encode = FourierEncoding(32, MIXED)
    x = torch.rand(1, 5, 3)
    turned = x.clone()
    turned[..., column] += 2 * math.pi
    assert_close(encode(turned), encode(x), atol=1e-4, rtol=0)
    turned[..., column] += 1.0
    assert (encode(turned) - encode(x)).abs().max() > 0.1


def test_dot_products_of_random_harmonics_depend_on_differences_of_angles_only() -> None:
    encode = FourierEncoding(64, [Coordinate("z"), Coordinate("phi", kind="harmonic")])
    x, y = torch.rand(2, 1, 6, 2)
    shift = torch.tensor([0.0, 2.5])
    products = (encode(x) * encode(y)).sum(-1)
    assert_close((encode(x + shift) * encode(y + shift)).sum(-1), products, atol=1e-3, rtol=0)


def test_nearby_points_have_similar_random_features() -> None:
    encode = FourierEncoding(4000, [Coordinate("x"), Coordinate("y")], sigma=0.5)
    x = torch.tensor([[[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [2.0, 2.0]]])
    products = (encode(x)[0] @ encode(x)[0, 0]) / 2000
    # The mean of cos(2 pi B x) over Gaussian B is exp(-2 (pi sigma x)^2).
    expected = torch.exp(-2 * (math.pi * 0.5 * x[0].norm(dim=-1)) ** 2)
    assert_close(products, expected, atol=0.06, rtol=0)


def test_random_features_are_part_of_the_checkpoint() -> None:
    trained, fresh = FourierEncoding(9, MIXED), FourierEncoding(9, MIXED)
    x = torch.rand(2, 4, 3)
    assert not torch.equal(trained(x), fresh(x))
    fresh.load_state_dict(trained.state_dict())
    assert_close(fresh(x), trained(x))
    assert (fresh(x)[..., 8:] == 0).all()  # nine features hold four pairs


@pytest.mark.parametrize("encoding", [SinusoidalEncoding, FourierEncoding])
def test_autocast_does_not_cost_an_encoding_its_precision(encoding: type) -> None:
    encode = encoding(24, MIXED)
    x = torch.rand(1, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        out = encode(x)
    assert out.dtype == torch.float32
    assert_close(out, encode(x))
    assert encode.coordinates == tuple(MIXED)


def test_learned_encoding_belongs_to_the_slot() -> None:
    encode = LearnedEncoding(6, 10)
    out = encode(torch.empty(3, 4, 0))
    assert out.shape == (3, 4, 6)
    assert_close(out, encode.vectors[:4].expand(3, -1, -1))


def test_more_tokens_than_were_learned_are_refused() -> None:
    with pytest.raises(ValueError, match="5 tokens came, the encoding has learned num_tokens=4"):
        LearnedEncoding(6, 4)(torch.empty(1, 5, 0))


def test_queries_are_spread_over_the_circle() -> None:
    quarters = [0.0, math.pi / 2, math.pi, 3 * math.pi / 2]
    assert_close(query_angles(4), torch.tensor(quarters))
    assert_close(query_angles(4, start=-math.pi), torch.tensor(quarters) - math.pi)


@pytest.mark.parametrize(
    ("dim", "coordinates", "sigma", "message"),
    [(1, MIXED, 1.0, "dim=1"), (8, [], 1.0, "there are 0"), (8, MIXED, 0.0, "sigma=0.0")],
)
def test_senseless_random_features_are_refused(
    dim: int, coordinates: list, sigma: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FourierEncoding(dim, coordinates, sigma)
