"""What the training jets decide: scales of the inputs, and the kinematics that jets begin with."""

# B jets, N particles, C types, R rows of kinematics

from typing import NamedTuple

import torch
from torch import Tensor

from hepattn.experiments.hypervae.batch import HypergraphBatch
from hepattn.experiments.hypervae.hypergraph import EDGE_FEATURES, HYPEREDGE_FEATURES
from hepattn.physics.four_vector import rapidity, transverse_momentum

NUM_ROWS = 4096


class JetStatistics(NamedTuple):
    """Numbers that a checkpoint carries.

    Attributes:
        energy_scale: One energy for all components of all jets, the mean pT in GeV ().
        edge_mean: Means of the edges' features (5).
        edge_scale: Their standard deviations (5).
        hyperedge_mean: Means of the hyperedges' features (5).
        hyperedge_scale: Their standard deviations (5).
        jet_mean: Means of ln pT, η and ln m, in GeV (3).
        jet_scale: Their standard deviations (3).
        log_share: Mean ln of pT over that of the jet at each place by falling pT (N).
        kinematics: ln pT and rapidity of training jets of each type (C, R, 2).
    """

    energy_scale: Tensor
    edge_mean: Tensor
    edge_scale: Tensor
    hyperedge_mean: Tensor
    hyperedge_scale: Tensor
    jet_mean: Tensor
    jet_scale: Tensor
    log_share: Tensor
    kinematics: Tensor

    @classmethod
    def empty(cls, num_types: int, num_slots: int) -> "JetStatistics":
        """Statistics that scale nothing."""
        edge, hyperedge = len(EDGE_FEATURES), len(HYPEREDGE_FEATURES)
        return cls(
            torch.tensor(1.0),
            torch.zeros(edge),
            torch.ones(edge),
            torch.zeros(hyperedge),
            torch.ones(hyperedge),
            torch.zeros(3),
            torch.ones(3),
            torch.linspace(-1.5, -6.0, num_slots),
            torch.zeros(num_types, NUM_ROWS, 2),
        )

    @classmethod
    def of(cls, batch: HypergraphBatch, num_types: int) -> "JetStatistics":
        """Measure jets; a type without any begins with the kinematics of all.

        Args:
            batch: The jets, as one batch.
            num_types: Number of jet types C.
        """
        jet = batch.vectors.sum(1)
        pt = transverse_momentum(jet).clamp(min=1e-3)  # (B)
        columns = torch.stack([pt.log(), batch.jet[:, 1], batch.jet[:, 2].clamp(min=0.1).log()], -1)
        share = (transverse_momentum(batch.vectors) / pt.unsqueeze(1)).clamp(min=1e-6).log()
        num = batch.valid.sum(0)
        mean = share.masked_fill(~batch.valid, 0.0).sum(0) / num.clamp(min=1)  # (N)
        mean = torch.where(num > 0, mean, mean[num > 0].min() if num.any() else -5.0)
        generator = torch.Generator().manual_seed(0)
        rows = torch.stack([pt.log(), rapidity(jet)], -1)  # (B, 2)
        tables = []
        for label in range(num_types):
            own = rows[batch.label == label]
            own = own if len(own) else rows
            tables.append(own[torch.randint(len(own), (NUM_ROWS,), generator=generator)])
        return cls(
            pt.mean(),
            *_moments(batch.graph.edges[batch.graph.edge_valid], len(EDGE_FEATURES)),
            *_moments(batch.graph.hyperedges[batch.graph.hyperedge_valid], len(HYPEREDGE_FEATURES)),
            *_moments(columns, 3),
            mean,
            torch.stack(tables),
        )


def _moments(rows: Tensor, num: int) -> tuple[Tensor, Tensor]:
    if len(rows) < 2:
        return torch.zeros(num), torch.ones(num)
    scale = rows.std(0)
    return rows.mean(0), torch.where(scale > 1e-6, scale, torch.ones_like(scale))
