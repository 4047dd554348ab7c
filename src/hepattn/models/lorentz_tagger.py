"""A Lorentz-equivariant jet tagger: L-GATr-slim on the four-vectors (arXiv:2512.17011)."""

# B jets, N particles, F features, V vectors of a particle, S scalars of a particle

from collections.abc import Sequence

import torch
from lgatr import LGATrSlim
from torch import Tensor, nn

from hepattn.nn.normalise import Feature, Normalise

# Time, and the beam to both sides, as (E, px, py, pz): what tells the detector's frame from others.
REFERENCES = ((1.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0, -1.0))


class LorentzTagger(nn.Module):
    """Classify jets by a transformer of vectors and scalars.

    A particle is its four-vector and its features. The scalars that the last layer leaves are
    averaged over the particles. Boosts and rotations of the four-vectors change the logits only
    through what breaks the symmetry: the reference vectors of the detector, which make it one
    about the beam, and features that depend on the frame. Without either the logits are invariant.

    Args:
        features: Columns of the input, in order.
        num_classes: Number of classes.
        depth: Number of blocks.
        num_vectors: Vectors of a particle in the hidden layers.
        num_scalars: Scalars of a particle in the hidden layers.
        num_heads: Number of attention heads.
        dropout: Probability of dropping a vector or scalar; none by default.
        break_symmetry: Whether each particle is given the directions of time and of the beam.
        use_features: Whether each particle is given its features.
        energy_scale: Energy in GeV that the four-vectors are divided by.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        num_classes: int,
        depth: int = 4,
        num_vectors: int = 16,
        num_scalars: int = 32,
        num_heads: int = 4,
        dropout: float = 0.0,
        break_symmetry: bool = True,
        use_features: bool = True,
        energy_scale: float = 20.0,
    ) -> None:
        super().__init__()
        self.normalise = Normalise(features)
        self.use_features = use_features
        self.energy_scale = energy_scale
        references = torch.tensor(REFERENCES if break_symmetry else [])
        self.register_buffer("references", references.view(-1, 4), persistent=False)
        self.backbone = LGATrSlim(
            num_blocks=depth,
            in_v_channels=1 + len(references),
            out_v_channels=0,
            hidden_v_channels=num_vectors,
            in_s_channels=len(self.normalise.embedded) if use_features else 1,
            out_s_channels=num_scalars,
            hidden_s_channels=num_scalars,
            num_heads=num_heads,
            dropout_prob=dropout or None,
        )
        self.head = nn.Linear(num_scalars, num_classes)

    def forward(self, x: Tensor, vectors: Tensor, valid: Tensor) -> Tensor:
        """Classify the jets.

        Args:
            x: Raw columns (B, N, F).
            vectors: Four-vectors (E, px, py, pz) in GeV (B, N, 4).
            valid: True for real particles (B, N).

        Returns:
            Logits (B, num_classes).
        """
        real = valid.unsqueeze(-1)  # (B, N, 1)
        vectors = vectors.masked_fill(~real, 0.0) / self.energy_scale
        references = self.references.expand(*valid.shape, -1, -1)  # (B, N, V - 1, 4)
        inputs = torch.cat([vectors.unsqueeze(-2), references], -2)  # (B, N, V, 4)
        scalars = real.to(vectors.dtype)  # a constant: the network must have one
        if self.use_features:
            scalars = self.normalise(x, valid).to(vectors.dtype)  # (B, N, S)
        # A jet without particles attends to its padding, and leaves no trace of it.
        seen = valid | ~valid.any(1, keepdim=True)
        _, scalars = self.backbone(inputs, scalars, attn_mask=seen[:, None, None])
        total = scalars.masked_fill(~real, 0.0).sum(1)  # (B, S)
        return self.head(total / valid.sum(1, keepdim=True).clamp(min=1))
