"""Normalisation layers by name."""

from typing import Literal

import torch
from torch import Tensor, nn

NormName = Literal["LayerNorm", "RMSNorm", "DyT"]


class DyT(nn.Module):
    """Dynamic tanh: ``weight * tanh(alpha * x) + bias``, a norm without statistics.

    Source: arXiv:2503.10622.

    Args:
        dim: Number of features.
        alpha: Initial slope.
    """

    def __init__(self, dim: int, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor([alpha]))
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Squash each feature of x (..., D)."""
        return self.weight * torch.tanh(self.alpha * x) + self.bias


def make_norm(name: NormName, dim: int) -> nn.Module:
    """Build the norm layer of that name.

    Args:
        name: ``LayerNorm``, ``RMSNorm`` (torch's) or ``DyT``.
        dim: Number of features.
    """
    return {"LayerNorm": nn.LayerNorm, "RMSNorm": nn.RMSNorm, "DyT": DyT}[name](dim)
