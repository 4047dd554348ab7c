"""Score biases that are functions of how far apart two tokens stand in the sequence.

Each module makes the table that `attention` takes as ``offset_bias``, one column for each offset
from -K to K.
"""

# H heads, K largest offset of a table

import math

import torch
from torch import Tensor, nn


class ALiBi(nn.Module):
    """Subtract from each score a multiple of the distance: ``-slope * |d|`` (arXiv:2108.12409).

    The slopes are the paper's geometric series from 2^(-8/H) to 2^-8, with its rule for numbers of
    heads that are no power of two. Distances are cyclic where the pattern wraps.

    Args:
        num_heads: Number of heads H.
        learnable: Whether the slopes are learned; they stay positive.
    """

    log_slopes: Tensor

    def __init__(self, num_heads: int, learnable: bool = False) -> None:
        super().__init__()
        log_slopes = torch.tensor(_slopes(num_heads)).log()  # (H,)
        if learnable:
            self.log_slopes = nn.Parameter(log_slopes)
        else:
            self.register_buffer("log_slopes", log_slopes, persistent=False)

    def forward(self, max_offset: int) -> Tensor:
        """Make the table up to the largest offset K of a batch's plan, (H, 2K + 1)."""
        return -self.log_slopes.exp()[:, None] * _distances(max_offset, self.log_slopes)


class RelativeBias(nn.Module):
    """Add to each score a learned number for each head and offset (arXiv:1910.10683).

    Offsets have a sign and are not put into buckets. The numbers start at zero.

    Args:
        num_heads: Number of heads H.
        max_offset: Largest offset K with a number of its own; offsets beyond share it. Half of the
            window gives each visible offset its own.

    Raises:
        ValueError: If ``max_offset`` is not positive.
    """

    no_weight_decay = ("table",)

    def __init__(self, num_heads: int, max_offset: int) -> None:
        super().__init__()
        if max_offset < 1:
            raise ValueError(f"max_offset={max_offset} must be at least 1")
        self.table = nn.Parameter(torch.zeros(num_heads, 2 * max_offset + 1))

    def forward(self, max_offset: int) -> Tensor:
        """Return the table (H, 2K + 1), whatever the largest offset of a batch's plan."""
        return self.table


class OffDiagonalPenalty(nn.Module):
    """Penalise scores away from the diagonal: ``-strength * max(0, |d| - free)``.

    Meant for queries and keys in the same order, of which mostly neighbours belong together.

    Args:
        num_heads: Number of heads with a learned strength of their own.
        strength: Penalty of each step, initially if learned.
        free: Offset up to which nothing is subtracted.
        learnable: Whether the strengths are learned; they stay positive.

    Raises:
        ValueError: If ``strength`` is not positive or ``free`` is negative.
    """

    log_strength: Tensor

    def __init__(
        self, num_heads: int = 1, strength: float = 0.1, free: int = 0, learnable: bool = False
    ) -> None:
        super().__init__()
        if strength <= 0:
            raise ValueError(f"strength={strength} must be positive")
        if free < 0:
            raise ValueError(f"free={free} must not be negative")
        self.free = free
        log_strength = torch.full((num_heads if learnable else 1,), math.log(strength))
        if learnable:
            self.log_strength = nn.Parameter(log_strength)
        else:
            self.register_buffer("log_strength", log_strength, persistent=False)

    def forward(self, max_offset: int) -> Tensor:
        """Make the table up to the largest offset K of a batch's plan, (H or 1, 2K + 1)."""
        beyond = (_distances(max_offset, self.log_strength) - self.free).clamp(min=0)
        return -self.log_strength.exp()[:, None] * beyond


def _distances(reach: int, like: Tensor) -> Tensor:
    """Absolute value of the offset of each column (2K + 1,)."""
    return torch.arange(-reach, reach + 1, device=like.device).abs().to(like.dtype)


def _slopes(num_heads: int) -> list[float]:
    """Slopes of the heads: 2^(-8h/H) for h = 1 to H.

    If H is no power of two, the paper's code takes the series of the next smaller power and, for
    the rest, every other slope of the next larger one.
    """
    power = 2 ** int(math.log2(num_heads))
    slopes = [2 ** (-8 * head / power) for head in range(1, power + 1)]
    between = [2 ** (-8 * head / (2 * power)) for head in range(1, 2 * power + 1, 2)]
    return slopes + between[: num_heads - power]
