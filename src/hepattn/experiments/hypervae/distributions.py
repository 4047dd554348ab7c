"""Distributions of generated jets against those of true ones, with gradients."""

# B jets, N particles, O observables, E edges

from typing import NamedTuple

import torch
from torch import Tensor

from hepattn.experiments.hypervae.hypergraph import HypergraphOptions, build_hypergraph
from hepattn.losses.vae import energy_distance, quantile_loss
from hepattn.ops.sort import sort_order, take
from hepattn.physics.correlators import momentum_shares, pair_distances
from hepattn.physics.energy_flow import connected_graphs, energy_flow_polynomials, num_vertices
from hepattn.physics.jet_shape import relative_mass, relative_particles

SHAPE_GRAPHS = tuple(
    (graph,)
    for d in (1, 2, 3, 4)
    for graph in connected_graphs(d)
    if d < 4 or num_vertices(graph) == 4
)
NUM_LEADING = 8  # particles whose pT is among the observables of a jet
FLOOR = 1e-5
SMALLEST_SHARE = 1e-3  # of a leading particle, also where there is none
SMALLEST_SPREAD = 0.1  # of a logarithm
NUM_SPECTRA = 1 + len(SHAPE_GRAPHS)  # the mass and the energy flow polynomials


class Sample(NamedTuple):
    """Jets of one or several types.

    Attributes:
        vectors: Four-vectors in GeV (B, N, 4), zero where there is no particle.
        valid: True for particles (B, N).
    """

    vectors: Tensor
    valid: Tensor

    def take(self, jets: Tensor) -> "Sample":
        """Select jets."""
        return Sample(self.vectors[jets], self.valid[jets])

    def sorted(self) -> "Sample":
        """Bring the particles of each jet into the order of falling pT, real ones first."""
        pt = self.vectors[..., 1].square() + self.vectors[..., 2].square()
        order = sort_order(-pt.detach(), self.valid)
        return Sample(take(self.vectors, order), self.valid.gather(1, order))


def jet_observables(jets: Sample) -> Tensor:
    """Describe each jet by numbers: mass, energy flow polynomials, the hardest particles.

    Args:
        jets: Jets by falling pT.

    Returns:
        (B, O), positive: the relative mass, 13 polynomials, the largest shares of pT.
    """
    relative = relative_particles(jets.vectors, jets.valid)
    shares = momentum_shares(relative.pt, jets.valid)
    angles = pair_distances(relative.eta, relative.phi)
    flow = energy_flow_polynomials(shares, angles, SHAPE_GRAPHS)  # (B, 13)
    mass = relative_mass(jets.vectors, jets.valid).unsqueeze(-1)
    leading = shares[:, :NUM_LEADING].clamp(min=SMALLEST_SHARE)
    return torch.cat([mass, flow, leading], -1).clamp(min=FLOOR)


def particle_columns(jets: Sample) -> Tensor:
    """Columns η, φ, share of pT and its logarithm of all real particles (4, particles)."""
    relative = relative_particles(jets.vectors, jets.valid)
    eta, phi, pt = relative.columns()[jets.valid].unbind(-1)
    return torch.stack([eta, phi, pt, pt.clamp(min=FLOOR).log()])


class Distances(NamedTuple):
    """How far samples are apart, in units of the spread of the true one.

    Attributes:
        edges: Mean over the edges' features.
        hyperedges: Mean over the hyperedges' features.
        columns: Mean over the columns of the particles.
        shapes: Energy distance of the observables of jets.
        spectra: Mean over the relative mass and the energy flow polynomials themselves, whose tails
            count for more than those of their logarithms.
    """

    edges: Tensor
    hyperedges: Tensor
    columns: Tensor
    shapes: Tensor
    spectra: Tensor


def compare(
    found: Sample,
    true: Sample,
    options: HypergraphOptions,
    power: int = 1,
    is_unbiased: bool = False,
) -> Distances:
    """Compare generated with true jets of one type.

    Args:
        found: Generated jets.
        true: True jets.
        options: Which particles have edges and hyperedges.
        power: Power of the difference of quantiles.
        is_unbiased: Whether the energy distance is estimated without bias, which is best to train
            with; else it is zero for equal samples.
    """
    found, true = found.sorted(), true.sorted()
    graphs = [build_hypergraph(x.vectors, x.valid, options) for x in (found, true)]
    edges = _pooled([graph.edges[graph.edge_valid].T for graph in graphs], power)
    hyperedges = _pooled([graph.hyperedges[graph.hyperedge_valid].T for graph in graphs], power)
    columns = _pooled([particle_columns(x) for x in (found, true)], power)
    observables = [jet_observables(x) for x in (found, true)]  # (B, O) each
    spectra = _pooled([x[:, :NUM_SPECTRA].T for x in observables], power, 1e-6)
    a, b = (x.log() for x in observables)
    if len(b) < 2:
        return Distances(edges, hyperedges, columns, a.sum() * 0.0, spectra)
    mean, scale = b.mean(0), b.std(0).clamp(min=SMALLEST_SPREAD)
    shapes = energy_distance((a - mean) / scale, (b - mean) / scale, is_unbiased)
    return Distances(edges, hyperedges, columns, shapes, spectra)


def _pooled(samples: list[Tensor], power: int, smallest: float = 1e-3) -> Tensor:
    """Mean distance of features (O, M) and (O, M'), in units of the spread of the second."""
    found, true = samples
    if found.shape[1] < 2 or true.shape[1] < 2:
        return found.sum() * 0.0
    scale = true.std(1, keepdim=True).clamp(min=smallest)
    return quantile_loss(found / scale, true / scale, power=power).mean()
