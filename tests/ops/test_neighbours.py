"""Nearest neighbours are those that a loop over all pairs finds."""

import math

import pytest
import torch
from torch import Tensor

from hepattn.ops.neighbours import nearest_neighbours


def random_tokens(*lengths: int, dim: int = 3) -> tuple[Tensor, Tensor]:
    valid = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return torch.randn(*valid.shape, dim), valid


def loop(x: Tensor, valid: Tensor, num_neighbours: int) -> dict[tuple[int, int], list[int]]:
    """Slots of the neighbours of each real token."""
    num_events, num_tokens = valid.shape
    found = {}
    for event in range(num_events):
        real = valid[event].nonzero().flatten().tolist()
        for token in real:
            others = [other for other in real if other != token]
            others.sort(key=lambda other: math.dist(x[event, token], x[event, other]))
            slots = [event * num_tokens + other for other in others[:num_neighbours]]
            found[event, token] = slots + [valid.numel()] * (num_neighbours - len(slots))
    return found


@pytest.mark.parametrize("dim", [2, 16])
def test_neighbours_are_the_nearest_other_real_tokens(dim: int) -> None:
    x, valid = random_tokens(9, 3, 0, 1, 5, dim=dim)
    index = nearest_neighbours(x.masked_fill(~valid.unsqueeze(-1), math.nan), valid, 4)
    assert index.shape == (5, 9, 4)
    for (event, token), slots in loop(x, valid, 4).items():
        assert sorted(index[event, token].tolist()) == sorted(slots)


def test_real_tokens_need_not_come_first() -> None:
    x, _ = random_tokens(8, 8)
    valid = torch.rand(2, 8) < 0.6
    index = nearest_neighbours(x, valid, 3)
    for (event, token), slots in loop(x, valid, 3).items():
        assert sorted(index[event, token].tolist()) == sorted(slots)


def test_a_token_is_not_its_own_neighbour_even_among_its_equals() -> None:
    x, valid = torch.ones(1, 5, 2), torch.ones(1, 5, dtype=torch.bool)
    for token, near in enumerate(nearest_neighbours(x, valid, 4)[0].tolist()):
        assert sorted(near) == [other for other in range(5) if other != token]


def test_far_from_the_origin_neighbours_stay_the_same() -> None:
    x, valid = random_tokens(20)
    near, far = (nearest_neighbours(x + shift, valid, 3).sort().values for shift in (0, 300))
    assert (near == far).all()


def test_autocast_does_not_coarsen_distances() -> None:
    x, valid = random_tokens(30, dim=16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = nearest_neighbours(x, valid, 4)
    assert (found.sort().values == nearest_neighbours(x.double(), valid, 4).sort().values).all()
