"""From the hypergraph of a jet to a normal distribution of its latent vector."""

# B jets, N particles, E edges, S scalars, D features, L latent dimensions

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hepattn.experiments.hypervae.hypergraph import (
    EDGE_FEATURES,
    HYPEREDGE_FEATURES,
    Hypergraph,
)
from hepattn.experiments.hypervae.residual_mlp import ResidualMLP
from hepattn.losses.vae import soft_bound
from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.lorentz import LorentzNetwork, Slim, with_references
from hepattn.nn.pooling import masked_mean
from hepattn.ops.attention import Full, make_plan
from hepattn.physics.four_vector import azimuth, pseudorapidity, transverse_momentum
from hepattn.physics.reference_frame import components

NUM_SCALARS = 5  # of a particle: ln pT, η and φ in the jet's frame, ln pT share, place by pT
LOG_VARIANCE = (-6.0, 3.0)


class Posterior(NamedTuple):
    """Normal distributions of latent vectors.

    Attributes:
        mean: Means (B, L).
        log_variance: Logarithms of the variances (B, L), between -6 and 3.
    """

    mean: Tensor
    log_variance: Tensor


class Encoder(nn.Module):
    """Particles by a Lorentz network, edges and hyperedges by dense nets, then their fusion.

    Args:
        num_conditions: Numbers that are known of a jet: its type, pT and rapidity.
        latent_dim: Number of latent dimensions L.
        network: Builds the network of the particles.
        particle_dim: Scalars of a particle after the network.
        edge_dim: Features of an edge.
        hyperedge_dim: Features of a hyperedge.
        num_edge_layers: Layers of the edges' dense net.
        num_hyperedge_layers: Layers of the hyperedges' dense net.
        num_heads: Heads with which particles attend to edges and hyperedges.
        fusion: Whether they do; else the three kinds meet in their means alone.
        dropout: Probability of dropping a feature.
    """

    def __init__(
        self,
        num_conditions: int,
        latent_dim: int,
        network: LorentzNetwork = Slim,
        particle_dim: int = 32,
        edge_dim: int = 32,
        hyperedge_dim: int = 32,
        num_edge_layers: int = 2,
        num_hyperedge_layers: int = 2,
        num_heads: int = 4,
        fusion: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        num_references = 4
        self.network = network(1 + num_references, NUM_SCALARS + num_conditions, 0, particle_dim)
        self.edges = ResidualMLP(len(EDGE_FEATURES), edge_dim, num_edge_layers, dropout)
        self.hyperedges = ResidualMLP(
            len(HYPEREDGE_FEATURES), hyperedge_dim, num_hyperedge_layers, dropout
        )
        self.fusion = None
        if fusion:
            self.fusion = nn.ModuleList(
                Fusion(particle_dim, dim, num_heads) for dim in (edge_dim, hyperedge_dim)
            )
        pooled = particle_dim + edge_dim + hyperedge_dim + num_conditions
        self.project = ResidualMLP(pooled, 2 * particle_dim, 1, dropout)
        self.mean = nn.Linear(2 * particle_dim, latent_dim)
        self.log_variance = nn.Linear(2 * particle_dim, latent_dim)

    def forward(
        self,
        vectors: Tensor,
        valid: Tensor,
        graph: Hypergraph,
        references: Tensor,
        conditions: Tensor,
    ) -> Posterior:
        """Encode jets.

        Args:
            vectors: Four-vectors (B, N, 4) in units of the data's energy scale.
            valid: True for real particles (B, N).
            graph: Edges and hyperedges, with features of mean 0 and variance 1.
            references: The tetrad of each jet (B, 4, 4).
            conditions: What is known of each jet (B, conditions).
        """
        scalars = particle_scalars(vectors, valid, references)  # (B, N, 5)
        known = conditions.unsqueeze(1).expand(-1, valid.shape[1], -1)
        inputs = with_references(vectors.unsqueeze(2), references)  # (B, N, 5, 4)
        _, particles = self.network(inputs, torch.cat([scalars, known], -1), valid)
        sides = (
            (self.edges(graph.edges), graph.edge_valid),
            (self.hyperedges(graph.hyperedges), graph.hyperedge_valid),
        )
        if self.fusion is not None:
            for fuse, (context, seen) in zip(self.fusion, sides, strict=True):
                particles = fuse(particles, valid, context, seen)
        pooled = [masked_mean(x, seen) for x, seen in ((particles, valid), *sides)]
        hidden = self.project(torch.cat([*pooled, conditions], -1))
        return Posterior(self.mean(hidden), soft_bound(self.log_variance(hidden), *LOG_VARIANCE))


class Fusion(nn.Module):
    """Let particles attend to edges or hyperedges.

    Args:
        dim: Features of a particle.
        context_dim: Features of an edge.
        num_heads: Number of attention heads.
    """

    def __init__(self, dim: int, context_dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.embed = nn.Linear(context_dim, dim)
        self.attention = Attention(dim, AttentionOptions(num_heads=num_heads))

    def forward(self, x: Tensor, valid: Tensor, context: Tensor, seen: Tensor) -> Tensor:
        """Update particles (B, N, D) by edges (B, E, C), real where ``valid`` and ``seen``."""
        if not context.shape[1]:
            return x
        plan = make_plan(Full(), seen, valid)
        update, _ = self.attention(self.norm(x), plan, context=self.embed(context))
        return x + update.masked_fill(~valid.unsqueeze(-1), 0.0)


def particle_scalars(vectors: Tensor, valid: Tensor, references: Tensor) -> Tensor:
    """Numbers of each particle that boosts and rotations of it and its references leave alone.

    Args:
        vectors: Four-vectors (B, N, 4) in units of the data's energy scale.
        valid: True for real particles (B, N).
        references: The tetrad of each jet (B, 4, 4).

    Returns:
        (B, N, 5): ln pT, η and φ in the frame of the tetrad, ln of the share of pT, place by pT.
    """
    # The frame's transverse direction is where φ = 0.
    seen = components(vectors.masked_fill(~valid.unsqueeze(-1), 0.0), references)
    seen = torch.where(valid.unsqueeze(-1), seen, seen.new_tensor([1.0, 1.0, 0.0, 0.0]))
    pt = transverse_momentum(seen).clamp(min=1e-9)
    total = pt.masked_fill(~valid, 0.0).sum(1, keepdim=True).clamp(min=1e-9)
    place = torch.linspace(-1, 1, valid.shape[1], device=pt.device, dtype=pt.dtype).expand_as(pt)
    eta, phi = pseudorapidity(seen), azimuth(seen)
    columns = [0.3 * pt.log(), 5 * eta, 5 * phi, 0.3 * (pt / total).log() + 1, place]
    return torch.stack(columns, -1)
