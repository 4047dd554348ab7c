"""Edge convolutions on the graph of nearest neighbours (arXiv:1801.07829)."""

# P tokens, D features, k neighbours, C features of an edge

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.batch_norm import MaskedBatchNorm

EDGE_VALUES = 2**17  # numbers of a slice of edges at inference, which the cache of a core holds


class EdgeConv(nn.Module):
    """Average what a small network says about each token and its neighbours.

    The network sees ``[x_i, x_j - x_i]`` of each edge: linear maps without bias, each followed by
    batch normalisation and ReLU. To the mean over the neighbours comes the token itself through a
    shortcut, and a ReLU (ParticleNet, arXiv:1902.08570).

    The first map is taken apart: ``W [x_i, x_j - x_i] = (W_1 - W_2) x_i + W_2 x_j`` needs a
    product per token and a sum per edge. At inference the norms are folded into the maps, and on
    the CPU edges are worked through in slices.

    Args:
        dim: Number of input features.
        widths: Features of an edge after each map; the last is the number of output features.
    """

    def __init__(self, dim: int, widths: Sequence[int]) -> None:
        super().__init__()
        dims = [2 * dim, *widths]
        self.maps = nn.ModuleList(
            nn.Linear(before, after, bias=False) for before, after in pairwise(dims)
        )
        self.norms = nn.ModuleList(MaskedBatchNorm(width) for width in widths)
        changes = dim != widths[-1]
        self.shortcut = nn.Linear(dim, widths[-1], bias=False) if changes else None
        self.shortcut_norm = MaskedBatchNorm(widths[-1]) if changes else None

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: Token features (P, D).
            neighbours: Rows of the neighbours of each token (P, k). Row P is a token whose
                features are zero.

        Returns:
            (P, C)
        """
        shortcut = x
        if self.shortcut is not None:
            shortcut = self.shortcut_norm(self.shortcut(x))  # (P, C)
        edges = self._in_training if self.training else self._folded
        return F.relu(shortcut + edges(x, neighbours))

    def _in_training(self, x: Tensor, neighbours: Tensor) -> Tensor:
        centre, other = _take_apart(x, self.maps[0].weight)  # (P, C), (P + 1, C)
        edge = F.embedding(neighbours, other) + centre.unsqueeze(1)  # (P, k, C)
        edge = F.relu(self.norms[0](edge))
        for linear, norm in zip(self.maps[1:], self.norms[1:], strict=True):
            edge = F.relu(norm(linear(edge)))
        return edge.mean(1)

    def _folded(self, x: Tensor, neighbours: Tensor) -> Tensor:
        folded = [_fold(*pair) for pair in zip(self.maps, self.norms, strict=True)]
        (weight, bias), *later = folded
        centre, other = _take_apart(x, weight)  # (P, C), (P + 1, C)
        centre = centre + bias
        is_sliced = x.device.type == "cpu" and not torch.is_grad_enabled()
        if torch.compiler.is_exporting() or not is_sliced:
            return _average(centre, other, neighbours, later)
        widest = max(linear.out_features for linear in self.maps)
        size = max(1, EDGE_VALUES // (neighbours.shape[1] * widest))
        slices = zip(centre.split(size), neighbours.split(size), strict=True)
        return torch.cat([_average(some, other, near, later) for some, near in slices])


def _take_apart(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Apply a map of ``[x_i, x_j - x_i]`` to the tokens that are i and to those that are j."""
    absolute, relative = weight.chunk(2, -1)  # (C, D) each
    other = F.pad(F.linear(x, relative), (0, 0, 0, 1))  # (P + 1, C)
    return F.linear(x, absolute - relative), other


def _fold(linear: nn.Linear, norm: MaskedBatchNorm) -> tuple[Tensor, Tensor]:
    """Make one map with bias of a map and the norm after it."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # (C)
    return linear.weight * scale.unsqueeze(1), norm.bias - norm.running_mean * scale


def _average(
    centre: Tensor, other: Tensor, neighbours: Tensor, later: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """Apply the first map's sum, the later maps and the mean over the neighbours."""
    edge = F.relu(F.embedding(neighbours, other) + centre.unsqueeze(1))  # (P, k, C)
    for weight, bias in later:
        edge = F.relu(F.linear(edge, weight, bias))
    return edge.mean(1)
