"""From one vector a feature to one vector for all of them."""

# F features, T numbers that a feature is encoded as, E embedding features

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Reduction = Literal["mean", "reshape", "conv1d", "conv2d", "attn", "none"]


class Mean(nn.Module):
    """Average the features.

    Args:
        num_features: Number of features F.
    """

    bias = None

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        """Reduce x (..., F, E) to (..., E)."""
        return x.mean(-2)

    def fold(self, rows: Tensor, first: int) -> Tensor:
        """Do the same to rows (f, T, E) that make the features from number ``first`` on."""
        return rows / self.num_features


class WeightedSum(nn.Module):
    """Sum the features with learned weights: a convolution whose channels they are.

    Args:
        num_features: Number of features F.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        bound = num_features**-0.5
        self.weight = nn.Parameter(torch.empty(num_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(1).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Reduce x (..., F, E) to (..., E)."""
        return (x * self.weight.unsqueeze(-1)).sum(-2) + self.bias

    def fold(self, rows: Tensor, first: int) -> Tensor:
        """Do the same to rows (f, T, E) that make the features from number ``first`` on."""
        return rows * self.weight[first : first + len(rows), None, None]


class Projection(nn.Module):
    """Write the features one behind the other and map them linearly.

    Args:
        num_features: Number of features F.
        dim: Number of embedding features E.
    """

    def __init__(self, num_features: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Reduce x (..., F, E) to (..., E)."""
        return self.linear(x.flatten(-2))

    def fold(self, rows: Tensor, first: int) -> Tensor:
        """Do the same to rows (f, T, E) that make the features from number ``first`` on."""
        maps = self.linear.weight.unflatten(1, (-1, rows.shape[-1]))  # (E, F, E)
        maps = maps[:, first : first + len(rows)].permute(1, 2, 0)  # (f, E, E)
        return torch.bmm(rows, maps)

    @property
    def bias(self) -> Tensor:
        """What is added to the sum over features (E,)."""
        return self.linear.bias


class AttentionReduction(nn.Module):
    """Average the features with weights that they give themselves, then GELU, norm and dropout.

    Args:
        dim: Number of embedding features E.
        dropout: Probability of dropping a feature of the result.
    """

    def __init__(self, dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1, bias=False)  # a softmax undoes a bias
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Reduce x (..., F, E) to (..., E)."""
        weight = self.score(x).softmax(-2)  # (..., F, 1)
        return self.dropout(self.norm(F.gelu((weight * x).sum(-2))))


def make_reduction(
    name: Reduction, num_features: int, dim: int, is_flat: bool
) -> tuple[nn.Module, int]:
    """Build the reduction of that name.

    Args:
        name: ``mean``; ``reshape``, one behind the other, for objects with a linear map back to E
            features; ``conv1d`` for events and ``conv2d`` for objects, a learned sum; ``attn``,
            weights by a softmax of learned scores; ``none``.
        num_features: Number of features F.
        dim: Number of embedding features E.
        is_flat: Whether these are columns of events, not of objects.

    Returns:
        The module, and how many numbers its answer has: E, or F E.

    Raises:
        ValueError: If the reduction is one of the other kind of columns.
    """
    if name == ("conv2d" if is_flat else "conv1d"):
        right, what = ("conv1d", "events") if is_flat else ("conv2d", "objects")
        raise ValueError(f"reduction={name!r} is not for columns of {what}; use {right!r}")
    if name == "none":
        return nn.Identity(), dim
    if name == "reshape" and is_flat:
        return nn.Flatten(-2), num_features * dim
    if name == "reshape":
        return Projection(num_features, dim), dim
    if name == "mean":
        return Mean(num_features), dim
    return (AttentionReduction(dim) if name == "attn" else WeightedSum(num_features)), dim
