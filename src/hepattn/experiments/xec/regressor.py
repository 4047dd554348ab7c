"""From the encoder's tokens to energy, time, position and direction of the photon."""

# B events, S sensors, T tokens, D features of a token, d components of a target

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from hepattn.experiments.xec.encoder import EncoderOptions, XecEncoder
from hepattn.nn.regression_head import RegressionHead, Variance

Target = Literal["energy", "start", "position", "direction", "angles"]
SIZES: dict[Target, int] = {"energy": 1, "start": 1, "position": 3, "direction": 3, "angles": 2}
"""Components of each target."""


class TargetHead(nn.Module):
    """Two hidden layers for a target.

    Args:
        dim: Features that come.
        size: Components d of the target.
        variance: Whether the logarithm of each component's variance is told, too, and whether that
            trains the features, see `RegressionHead`.
        hidden: Features inside.
        dropout: Probability of dropping one.
    """

    def __init__(
        self, dim: int, size: int, variance: Variance, hidden: int = 256, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
        )
        self.head = RegressionHead(hidden, size, variance)

    def forward(self, x: Tensor) -> Tensor:
        """Tell the mean, and the logarithm of the variance behind it, (B, d) or (B, 2d)."""
        return self.head(self.features(x))


class XecRegressor(nn.Module):
    """The encoder, and a head for each target.

    Args:
        encoder: What the encoder is made of.
        variances: For each target whether its variance is told, see `RegressionHead`.
        hidden: Features inside the heads.
        dropout: Probability of dropping one of them.
    """

    def __init__(
        self,
        encoder: EncoderOptions,
        variances: Mapping[Target, Variance],
        hidden: int = 256,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.encoder = XecEncoder(encoder)
        dim = self.encoder.num_tokens * encoder.dim
        self.targets = tuple(variances)
        self.heads = nn.ModuleDict(
            {
                name: TargetHead(dim, SIZES[name], variance, hidden, dropout)
                for name, variance in variances.items()
            }
        )

    def forward(self, photons: Tensor, time: Tensor, valid: Tensor, time_valid: Tensor) -> Tensor:
        """Tell all targets.

        Args:
            photons: Photons (B, S), anything where they are not known.
            time: Times in ns (B, S), anything where they are not known.
            valid: Where photons are known (B, S).
            time_valid: Where times are known (B, S).

        Returns:
            Scaled targets, one behind the other, each with its log variances if it has any; they
            count from what `Reference` says.
        """
        tokens = self.encoder(photons, time, valid, time_valid).tokens.flatten(1)  # (B, T D)
        return torch.cat([head(tokens) for head in self.heads.values()], -1)
