"""Lists of pairs against loops."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.ops.pairs import list_pairs, pack_pairs, spread_pairs

VALID = torch.arange(5) < torch.tensor([5, 0, 1, 3])[:, None]
KINDS = pytest.mark.parametrize("is_mirrored", [True, False])
SELVES = pytest.mark.parametrize("with_self", [True, False])


def loop(is_mirrored: bool, with_self: bool) -> list[tuple[int, int, int]]:
    return [
        (event, i, j)
        for event, row in enumerate(VALID.tolist())
        for i in range(5)
        for j in range(i + 1 if is_mirrored else 5)
        if row[i] and row[j] and (with_self or i != j)
    ]


@KINDS
@SELVES
def test_pairs_are_those_of_a_loop(is_mirrored: bool, with_self: bool) -> None:
    pairs = list_pairs(VALID, is_mirrored=is_mirrored, with_self=with_self)
    expected = loop(is_mirrored, with_self)
    assert pairs.first.tolist() == [5 * event + i for event, i, _ in expected]
    assert pairs.second.tolist() == [5 * event + j for event, _, j in expected]


@KINDS
@SELVES
def test_values_stand_where_a_loop_puts_them(is_mirrored: bool, with_self: bool) -> None:
    pairs = list_pairs(VALID, is_mirrored=is_mirrored, with_self=with_self)
    values = torch.randn(3, len(pairs.first), dtype=torch.float64)
    hidden = ~VALID
    expected = torch.zeros(4, 3, 5, 5, dtype=torch.float64)
    expected = expected.masked_fill(hidden[:, None, None], float("-inf"))
    for value, (event, i, j) in zip(values.T, loop(is_mirrored, with_self), strict=True):
        expected[event, :, i, j] = value
        if is_mirrored:
            expected[event, :, j, i] = value
    assert_close(spread_pairs(values, pairs, hidden), expected)


@KINDS
@SELVES
def test_packed_values_are_those_of_each_events_matrix(is_mirrored: bool, with_self: bool) -> None:
    pairs = list_pairs(VALID, is_mirrored=is_mirrored, with_self=with_self)
    values, lengths = torch.randn(3, len(pairs.first)), VALID.sum(1)
    matrices = spread_pairs(values, pairs)
    expected = [m[:, :n, :n].flatten(1) for m, n in zip(matrices, lengths.tolist(), strict=True)]
    assert_close(pack_pairs(values, pairs, lengths), torch.cat(expected, 1))


@KINDS
def test_gradients_are_those_of_differences(is_mirrored: bool) -> None:
    pairs = list_pairs(VALID, is_mirrored=is_mirrored)
    values = torch.randn(2, len(pairs.first), dtype=torch.float64, requires_grad=True)

    def spread(x: Tensor) -> Tensor:
        return spread_pairs(x, pairs)

    assert torch.autograd.gradcheck(spread, values)
