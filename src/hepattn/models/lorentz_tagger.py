"""A Lorentz-equivariant jet tagger: L-GATr-slim on the four-vectors (arXiv:2512.17011)."""

# B jets, N particles, F features, V vectors of a particle, S scalars of a particle

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hepattn.nn.lorentz import Slim, with_references
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
        self.backbone = Slim(
            in_vectors=1 + len(references),
            in_scalars=len(self.normalise.embedded) if use_features else 0,
            out_vectors=0,
            out_scalars=num_scalars,
            depth=depth,
            num_vectors=num_vectors,
            num_scalars=num_scalars,
            num_heads=num_heads,
            dropout=dropout,
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
        inputs = with_references(vectors.unsqueeze(-2) / self.energy_scale, self.references)
        scalars = self.normalise(x, valid) if self.use_features else vectors[..., :0]  # (B, N, S)
        _, scalars = self.backbone(inputs, scalars, valid)  # (B, N, S)
        return self.head(scalars.sum(1) / valid.sum(1, keepdim=True).clamp(min=1))
