"""Distances of sets against loops and other libraries."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog
from scipy.stats import wasserstein_distance
from torch import Tensor
from torch.testing import assert_close

from hepattn.ops.sets import (
    chamfer,
    hungarian,
    quantile_distance,
    sinkhorn,
    sliced_wasserstein,
    sorted_distance,
    squared_distances,
)

METRIC = (2.0, 1.0, 1.0, 1.0)  # energy counts twice
LENGTHS = ((5, 4), (2, 6), (1, 1))


def draw() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b = torch.randn(3, 5, 4).double(), torch.randn(3, 6, 4).double()
    valid_a, valid_b = (
        torch.arange(n) < torch.tensor([pair[i] for pair in LENGTHS])[:, None]
        for i, n in ((0, 5), (1, 6))
    )
    return a, b, valid_a, valid_b


def test_distances_are_weighted_squares() -> None:
    a, b, *_ = draw()
    found = squared_distances(a, b, METRIC)
    difference = (a[1, 3] - b[1, 2]).square()
    assert_close(found[1, 3, 2], 2 * difference[0] + difference[1:].sum())


def test_chamfer_is_the_mean_distance_to_the_nearest_one_both_ways() -> None:
    a, b, valid_a, valid_b = draw()
    cost = squared_distances(a, b, METRIC)
    found = chamfer(cost, valid_a.double(), valid_b.double())
    for jet, (m, n) in enumerate(LENGTHS):
        rows = [min(float(cost[jet, i, j]) for j in range(n)) for i in range(m)]
        columns = [min(float(cost[jet, i, j]) for i in range(m)) for j in range(n)]
        assert found[jet].item() == pytest.approx(sum(rows) / m + sum(columns) / n)


def test_chamfer_takes_weights_of_importance_and_of_presence() -> None:
    a, b, valid_a, valid_b = draw()
    cost = squared_distances(a, b)
    importance = torch.rand(3, 5).double(), torch.rand(3, 6).double()
    presence = (valid_a * torch.rand(3, 5)).double().requires_grad_()
    found = chamfer(cost, presence, valid_b.double(), importance)
    m, n = LENGTHS[1]
    nearest = cost[1, :m, :n].amin(1)
    share = presence[1, :m] * importance[0][1, :m]
    other = importance[1][1, :n]
    expected = (nearest * share).sum() / share.sum()
    expected = expected + (cost[1, :m, :n].amin(0) * other).sum() / other.sum()
    assert_close(found[1], expected)
    found.sum().backward()
    assert (presence.grad[valid_a][:7] != 0).all()


@pytest.mark.parametrize("distance", [chamfer, sinkhorn, hungarian])
def test_padding_and_empty_sets_have_no_influence(distance: object) -> None:
    a, b, valid_a, valid_b = draw()
    valid_b[2] = False
    masks = (valid_a, valid_b) if distance is hungarian else (valid_a.double(), valid_b.double())
    found = distance(squared_distances(a, b), *masks)
    a[~valid_a], b[~valid_b] = 7.0, -3.0
    assert_close(distance(squared_distances(a, b), *masks), found, rtol=0, atol=0)
    assert found[2] == 0


def test_hungarian_is_the_best_matching() -> None:
    a, b, valid_a, valid_b = draw()
    cost = squared_distances(a, b)
    found = hungarian(cost, valid_a, valid_b)
    for jet, (m, n) in enumerate(LENGTHS):
        part = cost[jet, :m, :n].numpy()
        assert found[jet].item() == pytest.approx(part[linear_sum_assignment(part)].mean())


def test_sinkhorn_comes_close_to_the_cheapest_transport() -> None:
    a, b, valid_a, valid_b = draw()
    cost = squared_distances(a, b)
    found = sinkhorn(cost, valid_a.double(), valid_b.double(), blur=0.01, num_steps=300)
    m, n = LENGTHS[0]
    rows = torch.kron(torch.eye(m), torch.ones(1, n))
    columns = torch.kron(torch.ones(1, m), torch.eye(n))
    equal = torch.cat([rows, columns]).numpy()
    masses = [1 / m] * m + [1 / n] * n
    exact = linprog(cost[0, :m, :n].flatten().numpy(), A_eq=equal, b_eq=masses).fun
    assert found[0].item() == pytest.approx(exact, rel=0.03)


def test_quantile_distance_is_that_of_scipy() -> None:
    a, b = torch.randn(2, 7).double(), torch.randn(2, 4).double()
    share_a, share_b = torch.rand(2, 7).double(), torch.rand(2, 4).double()
    share_a, share_b = (x / x.sum(1, keepdim=True) for x in (share_a, share_b))
    found = quantile_distance(a, b, share_a, share_b)
    for row in range(2):
        expected = wasserstein_distance(a[row], b[row], share_a[row], share_b[row])
        assert found[row].item() == pytest.approx(expected)


def test_distance_of_equally_many_samples_is_that_of_their_order() -> None:
    a, b = torch.randn(2, 9).double(), torch.randn(2, 9).double()
    even = torch.full((2, 9), 1 / 9).double()
    for power in (1, 2):
        assert_close(sorted_distance(a, b, power), quantile_distance(a, b, even, even, power))


def test_sliced_wasserstein_sees_no_order_and_no_padding_and_grows_with_a_shift() -> None:
    a, _, valid, _ = draw()
    weight = valid.double()
    shuffled = a.clone()
    shuffled[0] = a[0, [3, 1, 0, 4, 2]]
    shuffled[~valid] = 5.0

    def distance(shift: float) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return sliced_wasserstein(a, shuffled + shift, weight, weight, 16, METRIC, generator)

    assert_close(distance(0.0), torch.zeros(3).double())
    assert (distance(0.1) < distance(0.2)).all()


def test_one_dimension_is_sliced_once() -> None:
    a, b = torch.randn(1, 5, 1).double(), torch.randn(1, 5, 1).double()
    ones = torch.ones(1, 5).double()
    found = sliced_wasserstein(a, b, ones, ones, 3)
    assert_close(found, sorted_distance(a[..., 0], b[..., 0], 2))
