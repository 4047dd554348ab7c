"""What stands between a branch and the residual stream."""

# B events, N tokens, D features, H heads, E head features

from typing import Literal

import torch
from torch import Tensor, nn

ValueResidualMode = Literal["none", "fixed", "learned", "per_token"]


class LayerScale(nn.Module):
    """Scale each feature of a branch by a small learned factor (arXiv:2103.17239).

    Args:
        dim: Number of features.
        init: Initial factor.
    """

    def __init__(self, dim: int, init: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        """Scale x (..., D)."""
        return x * self.gamma


class DropPath(nn.Module):
    """Drop the branch for whole events in training (arXiv:1603.09382).

    Surviving events are scaled up so that the expectation stays.

    Args:
        probability: Of dropping an event's branch.

    Raises:
        ValueError: If the probability is not in [0, 1).
    """

    def __init__(self, probability: float = 0.0) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"drop_path={probability} must be in [0, 1)")
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Drop events of x (B, ...)."""
        if not self.training or self.probability == 0:
            return x
        keep = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(1 - self.probability)
        return x * keep / (1 - self.probability)


class ValueResidual(nn.Module):
    """Mix a layer's attention values with those of the first layer (arXiv:2410.17897).

    ``m * v + (1 - m) * v0`` with m = ½ (``fixed``), one learned m (``learned``) or, for each
    token and head, ``m = sigmoid(Linear(x))`` (``per_token``).

    Args:
        mode: How m is found; the layer exists only for modes other than ``none``.
        dim: Number of token features.
        num_heads: Number of value heads.
    """

    def __init__(
        self, mode: Literal["fixed", "learned", "per_token"], dim: int, num_heads: int
    ) -> None:
        super().__init__()
        self.mix = nn.Linear(dim, num_heads) if mode == "per_token" else None
        self.logit = nn.Parameter(torch.zeros(1)) if mode == "learned" else None

    def forward(self, x: Tensor, values: Tensor, first_values: Tensor) -> Tensor:
        """Mix the values.

        Args:
            x: Attention input (B, N, D).
            values: This layer's values (B, H, N, E).
            first_values: The first layer's values (B, H, N, E).

        Returns:
            (B, H, N, E)
        """
        if self.mix is not None:
            weight = self.mix(x).sigmoid().transpose(1, 2).unsqueeze(-1)  # (B, H, N, 1)
        elif self.logit is not None:
            weight = self.logit.sigmoid()
        else:
            weight = 0.5
        return first_values + weight * (values - first_values)
