"""Energy correlators against sums over all ordered choices of particles."""

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.physics.correlators import (
    correlations,
    correlator_spectrum,
    momentum_shares,
    pair_distances,
)

EDGES = torch.tensor([0.05, 0.1, 0.2, 0.4, 0.8], dtype=torch.float64)


def draw() -> tuple[Tensor, Tensor]:
    eta, phi = 0.3 * torch.randn(2, 3, 5, dtype=torch.float64)
    phi[0] += 3.1  # across the seam
    valid = torch.arange(5) < torch.tensor([[5], [3], [1]])
    shares = momentum_shares(torch.rand(3, 5, dtype=torch.float64), valid)
    return shares, pair_distances(eta, phi)


def brute_force(shares: Tensor, distances: Tensor, num_points: int) -> Tensor:
    spectrum = torch.zeros(len(shares), len(EDGES) + 1, dtype=shares.dtype)
    for jet, (z, distance) in enumerate(zip(shares, distances, strict=True)):
        for choice in product(range(len(z)), repeat=num_points):
            longest = max(float(distance[i, j]) for i in choice for j in choice)
            place = sum(longest >= edge for edge in EDGES.tolist())
            spectrum[jet, place] += torch.stack([z[i] for i in choice]).prod()
    return spectrum


@pytest.mark.parametrize("num_points", [2, 3, 4])
def test_spectrum_is_the_sum_over_all_ordered_choices(num_points: int) -> None:
    shares, distances = draw()
    found = correlator_spectrum(shares, distances, EDGES, num_points)
    assert_close(found, brute_force(shares, distances, num_points))


@pytest.mark.parametrize("num_points", [2, 3, 4])
def test_weights_of_a_jet_add_up_to_one(num_points: int) -> None:
    shares, distances = draw()
    assert_close(correlations(shares, distances, num_points).weight.sum(1), torch.ones(3).double())


def test_padding_has_no_weight() -> None:
    shares, distances = draw()
    found = correlations(shares, distances, 3)
    padded = (shares[:, found.index] == 0).any(-1)
    assert (found.weight[padded] == 0).all()


def test_distances_wrap_and_have_finite_gradients() -> None:
    eta = torch.zeros(1, 3, requires_grad=True)
    distances = pair_distances(eta, torch.tensor([[3.1, -3.1, 3.1]]))
    assert_close(distances[0, 0, 1], torch.tensor(2 * torch.pi - 6.2))
    distances.sum().backward()
    assert eta.grad.isfinite().all()


def test_number_of_points_is_checked() -> None:
    with pytest.raises(ValueError, match="num_points=5 must be 2 to 4"):
        correlations(*draw(), 5)
