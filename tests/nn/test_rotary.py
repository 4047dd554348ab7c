"""Rotary encodings: scores depend on differences of positions, for angles cyclically."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.nn.positional import Coordinate, FourierEncoding, SinusoidalEncoding
from hepattn.nn.rotary import Rotary, rotate

R, Z = Coordinate("r", scale=0.1), Coordinate("z")
PHI = Coordinate("phi", kind="harmonic")


def scores(rotary: Rotary, q: Tensor, k: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return rotate(q, rotary(x)) @ rotate(k, rotary(y)).mT


def test_each_coordinate_turns_pairs_of_its_own() -> None:
    rotary = Rotary(11, 2, [R, PHI], alpha=3.0, base=4.0)  # five pairs, two for each coordinate
    x, q = torch.tensor([[[2.0, 0.7]]]), torch.randn(1, 2, 1, 11)
    angles = [3.0 * 0.2, 1.5 * 0.2, 3 * 0.7, 2 * 0.7]  # 1.5 is rounded to the even 2
    expected = q.clone()
    for head in range(2):
        for pair, angle in enumerate(angles):
            a, b = q[0, head, 0, 2 * pair : 2 * pair + 2]
            turned = complex(a, b) * complex(math.cos(angle), math.sin(angle))
            expected[0, head, 0, 2 * pair] = turned.real
            expected[0, head, 0, 2 * pair + 1] = turned.imag
    assert_close(rotate(q, rotary(x)), expected)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("coordinates", [[R, Z], [R, PHI], None])
def test_scores_depend_on_differences_only(coordinates: list | None, mixed: bool) -> None:
    rotary = Rotary(16, 2, coordinates, alpha=2.0, mixed=mixed)
    num_coordinates = len(coordinates or "x")
    q, k = torch.randn(2, 3, 2, 5, 16)
    x, y = torch.rand(2, 3, 5, num_coordinates)
    shift = 3 * torch.rand(num_coordinates)
    moved = scores(rotary, q, k, x + shift, y + shift)
    assert_close(moved, scores(rotary, q, k, x, y), atol=1e-4, rtol=1e-4)
    assert (scores(rotary, q, k, x + shift, y) - moved).abs().max() > 0.1


@pytest.mark.parametrize("mixed", [False, True])
def test_a_full_turn_of_an_angle_changes_nothing(mixed: bool) -> None:
    rotary = Rotary(16, 2, [R, PHI], alpha=5.0, mixed=mixed)
    q, k = torch.randn(2, 3, 2, 5, 16)
    x, y = torch.rand(2, 3, 5, 2)
    turned = x + torch.tensor([0.0, 2 * math.pi])
    assert_close(scores(rotary, q, k, turned, y), scores(rotary, q, k, x, y), atol=1e-4, rtol=0)


def test_mixed_frequencies_of_open_coordinates_are_learned_for_each_head() -> None:
    rotary = Rotary(16, 3, [R, PHI, Z], alpha=5.0, mixed=True)
    assert rotary.learned.shape == (3, 2, 8)
    assert (rotary.frequencies == rotary.frequencies.round()).all()
    q, x = torch.randn(2, 3, 5, 16), torch.rand(2, 5, 3)
    (scores(rotary, q, q, x, x) * torch.randn(5, 5)).sum().backward()
    assert (rotary.learned.grad.abs().amax(-1) > 0).all()


def test_mixed_frequencies_are_part_of_the_checkpoint() -> None:
    trained, fresh = (Rotary(16, 3, [R, PHI], mixed=True) for _ in range(2))
    fresh.load_state_dict(trained.state_dict())
    x = torch.rand(2, 5, 2)
    assert_close(fresh(x), trained(x))


def test_heads_of_a_group_share_their_keys_frequencies() -> None:
    rotary = Rotary(8, 2, [Z], alpha=2.0, mixed=True)
    q, x = torch.randn(1, 4, 5, 8), torch.rand(1, 5, 1)
    cos, sin = rotary(x)
    expected = [rotate(q[:, h : h + 1], (cos[:, [h // 2]], sin[:, [h // 2]])) for h in range(4)]
    assert_close(rotate(q, (cos, sin)), torch.cat(expected, 1))


def test_rotations_are_made_in_float32_and_leave_the_dtype_alone() -> None:
    rotary = Rotary(16, 2, [Z, PHI], mixed=True)
    x = torch.rand(1, 4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        rotation = rotary(x)
    assert rotation[0].dtype == torch.float32
    assert_close(rotation, rotary(x))
    assert rotate(torch.randn(1, 2, 4, 16).bfloat16(), rotation).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coordinates": [Coordinate("phi", kind="circle")]}, "use kind='harmonic'"),
        ({"coordinates": [R, Z, PHI], "head_dim": 5}, "head_dim=5 must hold two features for each"),
        ({"coordinates": [PHI], "mixed": True}, "mixed=True needs an open coordinate"),
    ],
)
def test_senseless_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rotary(**({"head_dim": 8, "num_heads": 2} | options))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_positions_are_encoded_in_float32_whatever_the_precision_of_the_network(
    dtype: torch.dtype,
) -> None:
    coordinates = [Coordinate("phi", kind="harmonic"), Coordinate("z", scale=0.1)]
    x = torch.rand(1, 5, 2)
    for encode in (
        Rotary(8, 2, coordinates, alpha=8.0),
        Rotary(8, 2, coordinates, alpha=8.0, mixed=True),
        FourierEncoding(8, coordinates),
        SinusoidalEncoding(8, coordinates, alpha=8.0),
    ):
        expected, found = encode(x), encode.to(dtype)(x)
        for y, z in zip(expected, found, strict=True):
            assert z.dtype == torch.float32
            assert_close(z, y, atol=0.1, rtol=0.0)


def test_odd_heads_of_a_single_token_are_turned() -> None:
    x = torch.randn(1, 1, 1, 6)[..., :5]
    angle = torch.rand(1, 1, 1, 2)
    turned = rotate(x, (angle.cos(), angle.sin()))
    assert_close(turned[..., 4:], x[..., 4:])
    assert_close(turned[..., :4].norm(), x[..., :4].norm())
