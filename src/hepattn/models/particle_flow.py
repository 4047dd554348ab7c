"""Particle flow network: a deep set of the particles of a jet (arXiv:1810.05165)."""

# B jets, N particles, F features, D features of a particle or jet

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from hepattn.nn.normalise import Feature, Normalise


class ParticleFlowNetwork(nn.Module):
    """Sum what a network Φ says of each particle, and let a network F classify the sum.

    All layers end in ReLU. The defaults are the ones published for JetClass (arXiv:2202.03772).

    Args:
        features: Columns of the input, in order.
        num_classes: Number of classes.
        particle_widths: Units of the layers of Φ.
        jet_widths: Units of the hidden layers of F.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        num_classes: int,
        particle_widths: Sequence[int] = (128, 128, 128),
        jet_widths: Sequence[int] = (128, 128, 128),
    ) -> None:
        super().__init__()
        self.normalise = Normalise(features)
        self.particles = _layers(len(self.normalise.embedded), particle_widths)
        self.jet = _layers(particle_widths[-1], jet_widths)
        self.head = nn.Linear(jet_widths[-1], num_classes)

    def forward(self, x: Tensor, vectors: Tensor, valid: Tensor) -> Tensor:
        """Classify the jets.

        Args:
            x: Raw columns (B, N, F).
            vectors: Four-vectors (B, N, 4); not used.
            valid: True for real particles (B, N).

        Returns:
            Logits (B, num_classes).
        """
        x = self.particles(self.normalise(x, valid))  # (B, N, D)
        x = x.masked_fill(~valid.unsqueeze(-1), 0.0).sum(1)  # (B, D)
        return self.head(self.jet(x))


def _layers(dim: int, widths: Sequence[int]) -> nn.Sequential:
    layers = [[nn.Linear(*dims), nn.ReLU()] for dims in pairwise([dim, *widths])]
    return nn.Sequential(*(part for layer in layers for part in layer))
