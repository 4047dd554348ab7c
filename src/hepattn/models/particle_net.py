"""ParticleNet: edge convolutions on the nearest neighbours of each particle (arXiv:1902.08570)."""

# B jets, N particles, F features, D features of a particle, k neighbours, P real particles

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.edge_conv import EdgeConv
from hepattn.nn.normalise import Feature, Normalise
from hepattn.nn.packing import Packing, make_packing
from hepattn.ops.neighbours import nearest_neighbours


class ParticleNet(nn.Module):
    """Classify jets as clouds of particles.

    The first edge convolution looks at neighbours in (eta, phi), each later one at neighbours
    among the features that the one before it made. A jet's features are the mean over its
    particles. The defaults are the published ones.

    A particle always has ``num_neighbours`` neighbours. In a jet of fewer other particles those
    that are missing have features of zero, whatever the padded length: so it is in the published
    networks, too, where the batch is padded long enough.

    The statistics of batch normalisation are those of real particles and of their edges.

    Args:
        features: Columns of the input, in order, with ``part_deta`` and ``part_dphi`` among them.
        num_classes: Number of classes.
        num_neighbours: Neighbours of each particle.
        widths: Features of the edges after each map, for each edge convolution.
        dense_dim: Hidden units of the classifier.
        dropout: Probability of dropping one of them.

    Raises:
        ValueError: If the feature list has no ``part_deta`` or ``part_dphi``.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        num_classes: int,
        num_neighbours: int = 16,
        widths: Sequence[Sequence[int]] = ((64, 64, 64), (128, 128, 128), (256, 256, 256)),
        dense_dim: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.normalise = Normalise(features)
        self.coordinates = [self.normalise.index(name) for name in ("part_deta", "part_dphi")]
        self.num_neighbours = num_neighbours
        dims = [len(self.normalise.embedded), *(layer[-1] for layer in widths)]
        self.norm = MaskedBatchNorm(dims[0])
        self.convolutions = nn.ModuleList(
            EdgeConv(dim, layer) for dim, layer in zip(dims[:-1], widths, strict=True)
        )
        self.dense = nn.Linear(dims[-1], dense_dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dense_dim, num_classes)

    def forward(self, x: Tensor, vectors: Tensor, valid: Tensor) -> Tensor:
        """Classify the jets.

        Args:
            x: Raw columns (B, N, F).
            vectors: Four-vectors (B, N, 4); not used.
            valid: True for real particles (B, N).

        Returns:
            Logits (B, num_classes).
        """
        place = x[..., self.coordinates]  # (B, N, 2)
        packing = make_packing(valid)
        x = self.norm(packing.pack(self.normalise(x, valid)))  # (P, D)
        for convolve in self.convolutions:
            near = nearest_neighbours(place, valid, self.num_neighbours)  # (B, N, k)
            x = convolve(x, _packed_rows(near, packing))  # (P, D)
            place = packing.unpack(x)  # (B, N, D)
        x = place.masked_fill(~valid.unsqueeze(-1), 0.0).sum(1)  # (B, D)
        x = x / valid.sum(1, keepdim=True).clamp(min=1)
        return self.head(self.dropout(F.relu(self.dense(x))))


def _packed_rows(slots: Tensor, packing: Packing) -> Tensor:
    """Turn slots of the batch (B, N, k) into rows of its packed particles (P, k).

    The slot after the last becomes the row after the last.
    """
    slots = packing.pack(slots)  # (P, k)
    if packing.index is None:
        return slots
    num_rows = len(packing.index)
    rows = packing.index.new_full((packing.num_events * packing.num_slots + 1,), num_rows)
    rows[packing.index] = torch.arange(num_rows, device=rows.device)
    return rows[slots]
