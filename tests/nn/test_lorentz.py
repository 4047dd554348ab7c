"""Lorentz networks are covariant in vectors and references, and padding leaves no trace."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.nn.lorentz import Full, Slim, with_references
from hepattn.physics.four_vector import boost_along_z, rotate_about_z

MAKE = {
    "slim": lambda *sizes: Slim(*sizes, num_vectors=4, num_scalars=8, num_heads=2),
    "full": lambda *sizes: Full(*sizes, num_multivectors=4, num_scalars=8, num_heads=2),
}


def move(vectors: Tensor) -> Tensor:
    def turn(vectors: Tensor) -> Tensor:
        return vectors[..., [0, 3, 1, 2]]

    return turn(boost_along_z(rotate_about_z(turn(boost_along_z(vectors, 0.8)), 1.1), -0.5))


def draw(num_scalars: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    vectors = torch.randn(3, 5, 2, 4, dtype=torch.float64)
    references = torch.randn(3, 2, 4, dtype=torch.float64)
    scalars = torch.randn(3, 5, num_scalars, dtype=torch.float64)
    return vectors, references, scalars, torch.arange(5) < torch.tensor([[5], [2], [0]])


def make(kind: str, *sizes: int) -> nn.Module:
    return MAKE[kind](*sizes).double().eval()


@pytest.mark.parametrize("kind", MAKE)
def test_vectors_are_covariant_and_scalars_invariant_together_with_references(kind: str) -> None:
    vectors, references, scalars, valid = draw()
    net = make(kind, 4, 3, 2, 6)
    out_v, out_s = net(with_references(vectors, references), scalars, valid)
    moved_v, moved_s = net(with_references(move(vectors), move(references)), scalars, valid)
    assert_close(moved_v, move(out_v), atol=1e-10, rtol=1e-10)
    assert_close(moved_s, out_s, atol=1e-10, rtol=1e-10)
    fixed_v, _ = net(with_references(move(vectors), references), scalars, valid)
    assert (fixed_v - move(out_v)).abs().max() > 1e-4  # the references break the symmetry


@pytest.mark.parametrize("kind", MAKE)
def test_padding_has_no_influence_and_is_zero_on_the_way_out(kind: str) -> None:
    vectors, references, scalars, valid = draw()
    net = make(kind, 4, 3, 2, 6)
    out = net(with_references(vectors, references), scalars, valid)
    vectors[~valid], scalars[~valid] = 1e3, float("nan")
    for found, expected in zip(
        net(with_references(vectors, references), scalars, valid), out, strict=True
    ):
        assert_close(found, expected, rtol=0, atol=0)
        assert (found[~valid] == 0).all()


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("sizes", [(4, 0, 1, 6), (4, 3, 0, 6), (4, 3, 1, 0)])
def test_any_side_may_be_left_out(kind: str, sizes: tuple[int, int, int, int]) -> None:
    vectors, references, scalars, valid = draw(sizes[1])
    net = make(kind, *sizes)
    out_v, out_s = net(with_references(vectors, references), scalars, valid)
    assert out_v.shape == (3, 5, sizes[2], 4)
    assert out_s.shape == (3, 5, sizes[3])
    (out_v.sum() + out_s.sum()).backward()


@pytest.mark.parametrize("kind", MAKE)
def test_order_of_the_tokens_does_not_matter(kind: str) -> None:
    vectors, references, scalars, valid = draw()
    net = make(kind, 4, 3, 1, 6)
    order = torch.tensor([3, 0, 4, 1, 2])
    out, _ = net(with_references(vectors, references)[:1], scalars[:1], valid[:1])
    shuffled, _ = net(
        with_references(vectors[:1, order], references[:1]), scalars[:1, order], valid[:1]
    )
    assert_close(shuffled, out[:, order])


@pytest.mark.parametrize("kind", ["slim", "full"])
def test_dropout_acts_in_training(kind: str) -> None:
    cls = Slim if kind == "slim" else Full
    net = cls(4, 3, 1, 6, dropout=0.5).double()
    vectors, references, scalars, valid = draw()
    inputs = with_references(vectors, references), scalars, valid
    assert (net.train()(*inputs)[1] - net(*inputs)[1]).abs().max() > 0
    assert_close(net.eval()(*inputs)[1], net(*inputs)[1])
