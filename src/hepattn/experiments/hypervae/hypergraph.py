"""Jets as hypergraphs: particles, pairs of them (edges) and sets of three or four (hyperedges)."""

# B jets, N particles, E edges, H hyperedges, F features, k particles of a hyperedge

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from hepattn.physics.four_vector import delta_phi, transverse_momentum
from hepattn.physics.jet_shape import relative_particles

EDGE_FEATURES = ("ln_eec", "ln_delta", "ln_kt", "ln_z", "ln_m2")
"""Logarithms of the energy correlator's weight z_i z_j with z = pT / ΣpT, of the distance
Δ = √(Δη² + Δφ²), of kT = min(pT) Δ in GeV, of min(pT) / (pT_i + pT_j) and of the squared mass in
GeV²."""
HYPEREDGE_FEATURES = ("ln_eec", "ln_longest", "ln_middle", "ln_shortest", "ln_m")
"""Logarithms of the weight Π z, of the longest, the median and the shortest distance between two of
the particles, and of their mass in GeV."""
SMALLEST_DISTANCE = 1e-3  # below the cells of calorimeters
SMALLEST_SHARE = 1e-6
ORDERS = (3, 4)


@dataclass(frozen=True)
class HypergraphOptions:
    """Which particles have edges and hyperedges.

    Args:
        num_edge_particles: Edges are the pairs of so many particles of highest pT.
        num_hyperedge_particles: Hyperedges are the sets of so many particles of highest pT.
        orders: Numbers of particles of a hyperedge, 3 and 4; empty for no hyperedges.

    Raises:
        ValueError: If a number is too small or an order unknown.
    """

    num_edge_particles: int = 30
    num_hyperedge_particles: int = 16
    orders: tuple[int, ...] = (3,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "orders", tuple(self.orders))
        if self.num_edge_particles < 2:
            raise ValueError(f"num_edge_particles={self.num_edge_particles} must be at least 2")
        if wrong := [order for order in self.orders if order not in ORDERS]:
            raise ValueError(f"orders={self.orders} holds {wrong}; choose among {ORDERS}")
        if self.orders and self.num_hyperedge_particles < max(self.orders):
            raise ValueError(
                f"num_hyperedge_particles={self.num_hyperedge_particles} must be at least "
                f"{max(self.orders)}, as orders={self.orders} ask for"
            )


class Hypergraph(NamedTuple):
    """Edges and hyperedges of padded jets, whose particles come by falling pT.

    Attributes:
        edges: Features of the edges (B, E, 5); zero where one of the particles is padding.
        edge_valid: True for edges of real particles (B, E).
        hyperedges: Features of the hyperedges (B, H, 5).
        hyperedge_valid: True for hyperedges of real particles (B, H).
    """

    edges: Tensor
    edge_valid: Tensor
    hyperedges: Tensor
    hyperedge_valid: Tensor


@cache
@torch.inference_mode(False)  # else a training could not use what an evaluation has left here
def choices(num: int, order: int) -> Tensor:
    """Sets of some of the first particles (sets, order), those of the first ones first."""
    sets = sorted(combinations(range(num), order), key=lambda members: members[::-1])
    return torch.tensor(sets, dtype=torch.int64).view(-1, order)


@cache
def hyperedge_sets(num: int, orders: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Particles of the hyperedges, such that those of real particles come first in any jet."""
    sets = [tuple(row) for order in orders for row in choices(num, order).tolist()]
    return tuple(sorted(sets, key=max))


def build_hypergraph(vectors: Tensor, valid: Tensor, options: HypergraphOptions) -> Hypergraph:
    """Compute edges and hyperedges of all jets at once, with gradients.

    Args:
        vectors: Massless four-vectors by falling pT in GeV (B, N, 4).
        valid: True for real particles (B, N).
        options: Which particles have edges and hyperedges.
    """
    B, N = valid.shape
    relative = relative_particles(vectors, valid)
    share = (relative.pt / relative.pt.sum(-1, keepdim=True).clamp(min=1e-12)).clamp(SMALLEST_SHARE)
    pt = transverse_momentum(vectors).clamp(min=1e-6)
    first, second = choices(min(N, options.num_edge_particles), 2).to(vectors.device).T  # (E,)
    distance, squared_mass = _pairs(relative.eta, relative.phi, pt, first, second)
    smaller = torch.minimum(pt[:, first], pt[:, second])
    edges = torch.stack(
        [
            share[:, first].log() + share[:, second].log(),
            distance.log(),
            (smaller * distance).log(),
            (smaller / (pt[:, first] + pt[:, second])).log(),
            squared_mass.log(),
        ],
        -1,
    )  # (B, E, 5)
    edge_valid = valid[:, first] & valid[:, second]
    parts = [
        _hyperedges(relative.eta, relative.phi, pt, share, valid, options, k)
        for k in options.orders
    ]
    if parts:
        last = [choices(min(N, options.num_hyperedge_particles), k)[:, -1] for k in options.orders]
        order = torch.cat(last).argsort(stable=True).to(vectors.device)  # as hyperedge_sets
        hyperedges, hyperedge_valid = (torch.cat(x, 1)[:, order] for x in zip(*parts, strict=True))
    else:
        hyperedges = vectors.new_zeros(B, 0, len(HYPEREDGE_FEATURES))
        hyperedge_valid = valid.new_zeros(B, 0)
    return Hypergraph(
        edges.masked_fill(~edge_valid.unsqueeze(-1), 0.0),
        edge_valid,
        hyperedges.masked_fill(~hyperedge_valid.unsqueeze(-1), 0.0),
        hyperedge_valid,
    )


def _hyperedges(
    eta: Tensor,
    phi: Tensor,
    pt: Tensor,
    share: Tensor,
    valid: Tensor,
    options: HypergraphOptions,
    order: int,
) -> tuple[Tensor, Tensor]:
    index = choices(min(valid.shape[1], options.num_hyperedge_particles), order).to(eta.device)
    sides = [_pairs(eta, phi, pt, index[:, i], index[:, j]) for j in range(order) for i in range(j)]
    distances = torch.stack([distance for distance, _ in sides], -1)  # (B, H, pairs)
    squared_mass = torch.stack([mass for _, mass in sides], -1).sum(-1)  # massless particles
    columns = [
        share[:, index].log().sum(-1),
        distances.amax(-1).log(),
        distances.median(-1).values.log(),
        distances.amin(-1).log(),
        0.5 * squared_mass.log(),
    ]
    return torch.stack(columns, -1), valid[:, index].all(-1)


def _pairs(
    eta: Tensor, phi: Tensor, pt: Tensor, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:
    """Distance and squared mass in GeV² of pairs of massless particles (B, pairs)."""
    deta = eta[:, first] - eta[:, second]
    dphi = delta_phi(phi[:, first], phi[:, second])
    distance = (deta.square() + dphi.square() + SMALLEST_DISTANCE**2).sqrt()
    # 2 pT pT' (cosh Δη - cos Δφ), without a difference of large numbers
    angle = (0.5 * deta).sinh().square() + (0.5 * dphi).sin().square() + SMALLEST_DISTANCE**2 / 4
    return distance, 4 * pt[:, first] * pt[:, second] * angle
