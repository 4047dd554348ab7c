"""Tables of score biases by offset."""

import pytest
import torch
from torch.testing import assert_close

from hepattn.nn.offset_bias import ALiBi, OffDiagonalPenalty, RelativeBias


def test_alibi_falls_with_the_distance_by_the_papers_slopes() -> None:
    table = ALiBi(8)(2)
    slopes = torch.tensor([1 / 2**h for h in range(1, 9)])
    assert_close(table, -slopes[:, None] * torch.tensor([2.0, 1.0, 0.0, 1.0, 2.0]))


def test_alibi_fills_in_slopes_where_the_heads_are_no_power_of_two() -> None:
    slopes = ALiBi(3)(1)[:, 0].neg()
    assert_close(slopes, torch.tensor([2.0**-4, 2.0**-8, 2.0**-2]))


def test_learned_slopes_start_as_the_papers_and_stay_positive() -> None:
    bias = ALiBi(4, learnable=True)
    assert_close(bias(3), ALiBi(4)(3))
    optimizer = torch.optim.SGD(bias.parameters(), lr=100.0)
    for _ in range(3):
        optimizer.zero_grad()
        (-bias(3).sum()).backward()  # pushes the slopes down
        optimizer.step()
    assert (bias(3)[:, :3] <= 0).all()
    assert bias.log_slopes.grad.isfinite().all()


def test_relative_bias_is_a_learned_table_that_starts_at_zero() -> None:
    bias = RelativeBias(2, max_offset=3)
    assert bias(10).shape == (2, 7)
    assert (bias(10) == 0).all()
    assert bias(10) is bias.table


@pytest.mark.parametrize("learnable", [False, True])
def test_penalty_spares_the_diagonal_and_its_neighbours(learnable: bool) -> None:
    bias = OffDiagonalPenalty(num_heads=2, strength=0.5, free=1, learnable=learnable)
    expected = torch.tensor([[-1.0, -0.5, 0.0, 0.0, 0.0, -0.5, -1.0]])
    assert_close(bias(3), expected.expand(2 if learnable else 1, -1))
    assert len(list(bias.parameters())) == learnable


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RelativeBias(2, 0), "max_offset=0"),
        (lambda: OffDiagonalPenalty(strength=0.0), "strength=0.0"),
        (lambda: OffDiagonalPenalty(free=-1), "free=-1"),
    ],
)
def test_senseless_options_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
