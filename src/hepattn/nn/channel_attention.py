"""Attention inside images: of channels, of cells, of all cells to each other.

All of it looks at visible places alone, is zero at masked ones, and keeps the shape, so that a
`ConvNeXtBlock` takes it as its ``attention``.
"""

# B events, P places, C channels

import torch
from torch import Tensor, nn

from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.next_block import hide
from hepattn.ops.attention import BackendName, Full, make_plan
from hepattn.ops.sort import invert, sort_order, take


class SqueezeExcite(nn.Module):
    """Scale each channel by what the mean over the places says of all channels (arXiv:1709.01507).

    Mean, linear map, ReLU, linear map, sigmoid.

    Args:
        dim: Number of channels C.
        reduction: How many channels share a hidden unit; there is at least one unit.
    """

    def __init__(self, dim: int, reduction: int = 16) -> None:
        super().__init__()
        self.gate = _make_gate(dim, reduction)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Scale.

        Args:
            x: Features of the places (B, ..., C).
            visible: True for visible places (B, ...); None if all are.

        Returns:
            Like ``x``; zero at masked places.
        """
        x = hide(x, visible)
        return x * self.gate(_mean(x, visible)).sigmoid()


class ConvBlockAttention(nn.Module):
    """Scale channels, then cells: the convolutional block attention module (arXiv:1807.06521).

    The channels' gate is the sigmoid of the sum of what one small network says of their means and
    of their maxima; the cells' gate that of a convolution over the mean and the maximum of the
    channels at each cell. There is no batch normalisation.

    Args:
        dim: Number of channels C.
        reduction: How many channels share a hidden unit; there is at least one unit.
        kernel_size: Width of the convolution, odd.

    Raises:
        ValueError: If the width is even or not positive.
    """

    def __init__(self, dim: int, reduction: int = 16, kernel_size: int = 7) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} must be odd and positive")
        self.gate = _make_gate(dim, reduction)
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Scale images (B, H, W, C); else as in `SqueezeExcite.forward`."""
        x = hide(x, visible)
        channels = self.gate(_mean(x, visible)) + self.gate(_maximum(x, visible))
        x = x * channels.sigmoid()  # (B, H, W, C)
        summary = torch.stack([x.mean(-1), x.amax(-1)], 1)  # (B, 2, H, W), zero at masked cells
        return x * self.conv(summary).sigmoid().permute(0, 2, 3, 1)


class NonLocal(nn.Module):
    """Let each place see all others: a non-local block (arXiv:1711.07971).

    ``x + W softmax(q k) v`` in the embedded Gaussian form, as the library's attention computes it:
    scores are divided by the root of the features of a head. W starts at zero, so that the layer
    starts as the identity. Its cost grows with the square of the number of places.

    Args:
        dim: Number of channels C.
        num_heads: Number of heads; one in the paper.
        head_dim: Features of a head; half the channels by default, shared by the heads.
        backend: Attention backend.

    Raises:
        ValueError: If the heads do not divide half of the channels and have no number of their own.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 1,
        head_dim: int | None = None,
        backend: BackendName = "auto",
    ) -> None:
        super().__init__()
        inner = max(1, dim // 2)
        if head_dim is None and inner % num_heads:
            raise ValueError(
                f"num_heads={num_heads} must divide half of dim={dim}; or set head_dim"
            )
        head_dim = head_dim or inner // num_heads
        options = AttentionOptions(num_heads=num_heads, head_dim=head_dim, backend=backend)
        self.attention = Attention(dim, options)
        nn.init.zeros_(self.attention.out.weight)
        nn.init.zeros_(self.attention.out.bias)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Attend; arguments and result as in `SqueezeExcite.forward`."""
        x = hide(x, visible)
        tokens = x.flatten(1, -2)  # (B, P, C)
        if visible is None:
            plan = make_plan(Full(), torch.ones_like(tokens[..., 0], dtype=torch.bool))
            return x + self.attention(tokens, plan)[0].view(x.shape)
        seen = visible.flatten(1)  # (B, P)
        place = torch.arange(seen.shape[1], device=x.device).expand_as(seen)
        order = sort_order(place, seen)  # attention has real tokens first
        plan = make_plan(Full(), seen.gather(1, order))
        update = take(self.attention(take(tokens, order), plan)[0], invert(order))
        return x + hide(update.view(x.shape), visible)


def _make_gate(dim: int, reduction: int) -> nn.Sequential:
    if reduction < 1:
        raise ValueError(f"reduction={reduction} must be at least 1")
    hidden = max(1, dim // reduction)
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))


def _mean(x: Tensor, visible: Tensor | None) -> Tensor:
    """Mean over the visible places of x (B, ..., C), zero elsewhere, as (B, 1, ..., C)."""
    places = tuple(range(1, x.ndim - 1))
    if visible is None:
        return x.mean(places, keepdim=True)
    count = visible.unsqueeze(-1).sum(places, keepdim=True).clamp(min=1)
    return x.sum(places, keepdim=True) / count


def _maximum(x: Tensor, visible: Tensor | None) -> Tensor:
    """Maximum over the visible places; zero for an event without. Else as `_mean`."""
    places = tuple(range(1, x.ndim - 1))
    if visible is None:
        return x.amax(places, keepdim=True)
    seen = visible.unsqueeze(-1)
    highest = x.masked_fill(~seen, -torch.inf).amax(places, keepdim=True)
    some = visible.flatten(1).any(1).view(-1, *[1] * (x.ndim - 1))  # (B, 1, ..., 1)
    return torch.where(some, highest, 0.0)
