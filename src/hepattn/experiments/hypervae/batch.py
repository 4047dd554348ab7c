"""What the autoencoder gets to see of a batch of jets."""

# B jets, N particles

from typing import NamedTuple

import torch
from torch import Tensor

from hepattn.experiments.hypervae.hypergraph import (
    Hypergraph,
    HypergraphOptions,
    build_hypergraph,
)
from hepattn.physics.four_vector import mass, pseudorapidity, transverse_momentum
from hepattn.physics.reference_frame import project_to_shell


class HypergraphBatch(NamedTuple):
    """A padded batch of jets.

    Attributes:
        vectors: Massless four-vectors in GeV (B, N, 4), by falling pT; zero at padded slots.
        valid: True for real particles (B, N).
        graph: Edges and hyperedges.
        jet: pT in GeV, η and mass in GeV of the sum of these particles (B, 3).
        label: Number of the type (B).
        weight: Weight of the jet in the loss, 0 for jets that only fill up a batch (B).
        index: Row of the jet in the source (B).
    """

    vectors: Tensor
    valid: Tensor
    graph: Hypergraph
    jet: Tensor
    label: Tensor
    weight: Tensor
    index: Tensor

    def first(self, num: int) -> "HypergraphBatch":
        """The first jets."""
        return HypergraphBatch(
            *(
                Hypergraph(*(y[:num] for y in x)) if isinstance(x, Hypergraph) else x[:num]
                for x in self
            )
        )


def make_batch(
    vectors: Tensor,
    valid: Tensor,
    label: Tensor,
    weight: Tensor,
    index: Tensor,
    options: HypergraphOptions,
) -> HypergraphBatch:
    """Make a batch of four-vectors, of which the momentum counts: particles are made massless.

    Args:
        vectors: Four-vectors in GeV (B, N, 4), by falling pT.
        valid: True for real particles (B, N).
        label: Number of the type (B).
        weight: Weight of the jet (B).
        index: Row of the jet in the source (B).
        options: Which particles have edges and hyperedges.
    """
    vectors = project_to_shell(vectors, vectors.new_tensor([1.0, 0.0, 0.0, 0.0]))
    vectors = vectors.masked_fill(~valid.unsqueeze(-1), 0.0)
    return HypergraphBatch(
        vectors,
        valid,
        build_hypergraph(vectors, valid, options),
        jet_kinematics(vectors.sum(1)),
        label,
        weight,
        index,
    )


def jet_kinematics(jet: Tensor) -> Tensor:
    """Give pT in GeV, η and mass in GeV of four-vectors (B, 4) as (B, 3)."""
    return torch.stack([transverse_momentum(jet), pseudorapidity(jet), mass(jet)], -1)
