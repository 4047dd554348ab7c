"""Energy correlators of jets: how energy is spread over distances, by two to four points.

The correlator of k points weighs k particles by the product of their shares of the jet's transverse
momentum, z = pT / ΣpT, at their distance: the longest of the distances between two of them, as in
arXiv:2004.11381. All ordered choices of k particles count, those that take a particle several times
(contact terms) included, so that the weights of a jet add up to (Σ z)^k = 1. A choice of different
particles stands for all its orders: its weight is multiplied with their number.
"""

# B jets, N particles, P choices of particles, k points, K bins

from itertools import combinations_with_replacement
from math import factorial
from typing import NamedTuple

import torch
from torch import Tensor

from hepattn.physics.four_vector import delta_phi

MAX_POINTS = 4


class Correlations(NamedTuple):
    """The choices of particles of each jet.

    Attributes:
        weight: Product of the shares times the number of orders (B, P); zero where a particle is
            padding.
        distance: Longest distance between two of the particles (B, P); zero for contact terms of
            one particle.
        index: Which particles (P, k), in rising order.
    """

    weight: Tensor
    distance: Tensor
    index: Tensor


def momentum_shares(pt: Tensor, valid: Tensor) -> Tensor:
    """Give the shares z of the transverse momentum of a jet.

    Args:
        pt: Transverse momenta, in any unit (B, N).
        valid: True for real particles (B, N).

    Returns:
        (B, N), of sum 1; zero at padded slots and in jets without particles.
    """
    pt = pt.masked_fill(~valid, 0.0)
    return pt / pt.sum(-1, keepdim=True).clamp(min=1e-12)


def pair_distances(eta: Tensor, phi: Tensor) -> Tensor:
    """Give the distances √(Δη² + Δφ²) of all pairs, φ wrapped.

    Args:
        eta: Pseudorapidities (B, N).
        phi: Azimuths in radians (B, N).

    Returns:
        (B, N, N), with gradients of zero between particles at one place.
    """
    eta = eta.unsqueeze(-1) - eta.unsqueeze(-2)
    phi = delta_phi(phi.unsqueeze(-1), phi.unsqueeze(-2))
    squared = eta.square() + phi.square()
    together = squared == 0
    return squared.masked_fill(together, 1.0).sqrt().masked_fill(together, 0.0)


def correlations(shares: Tensor, distances: Tensor, num_points: int) -> Correlations:
    """List the choices of k particles of each jet, with weight and distance.

    Args:
        shares: Shares z of the transverse momentum (B, N), zero at padded slots.
        distances: Distances of all pairs (B, N, N).
        num_points: Number of points k, 2 to 4.

    Returns:
        The choices; for N particles there are C(N + k - 1, k).

    Raises:
        ValueError: If the number of points is out of range.
    """
    _check_points(num_points)
    num = shares.shape[-1]
    choices = list(combinations_with_replacement(range(num), num_points))
    index = torch.tensor(choices, device=shares.device).view(-1, num_points)  # (P, k)
    orders = shares.new_tensor([_num_orders(choice) for choice in choices])  # (P)
    weight = shares[:, index].prod(-1) * orders  # (B, P)
    sides = [
        distances[:, index[:, i], index[:, j]]
        for i in range(num_points)
        for j in range(i + 1, num_points)
    ]
    return Correlations(weight, torch.stack(sides).amax(0), index)


def correlator_spectrum(
    shares: Tensor, distances: Tensor, edges: Tensor, num_points: int = 2
) -> Tensor:
    """Add the weights of the choices of particles up in bins of their distance.

    Args:
        shares: Shares z of the transverse momentum (B, N), zero at padded slots.
        distances: Distances of all pairs (B, N, N).
        edges: Rising edges of the bins (K + 1).
        num_points: Number of points k, 2 to 4.

    Returns:
        (B, K + 2): what lies below the first edge (contact terms of one particle among it), the
        bins, and what lies above the last edge. Each row adds up to 1.

    Raises:
        ValueError: If the number of points is out of range.
    """
    found = correlations(shares, distances, num_points)
    place = torch.bucketize(found.distance.detach(), edges, right=True)  # (B, P)
    spectrum = shares.new_zeros(len(shares), len(edges) + 1)
    return spectrum.scatter_add(1, place, found.weight)


def _check_points(num_points: int) -> None:
    if not 2 <= num_points <= MAX_POINTS:
        raise ValueError(f"num_points={num_points} must be 2 to {MAX_POINTS}")


def _num_orders(choice: tuple[int, ...]) -> int:
    orders = factorial(len(choice))
    for particle in set(choice):
        orders //= factorial(choice.count(particle))
    return orders
