"""From the objects of an event to one vector, or to a few."""

# B events, N objects, D features, K kinds of objects, S seeds

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from hepattn.ops.attention import Full, Plan, make_plan


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Average the real objects of each event.

    Args:
        x: Objects (B, N, D); anything at padded slots.
        valid: True for real objects (B, N).

    Returns:
        (B, D); zero for an event without objects.
    """
    total = x.masked_fill(~valid.unsqueeze(-1), 0.0).sum(1)  # (B, D)
    return total / valid.sum(1, keepdim=True).clamp(min=1)


def kind_means(x: Tensor, valid: Tensor, sizes: Sequence[int]) -> Tensor:
    """Average the real objects of each kind in each event.

    Args:
        x: Objects (B, N, D), one kind behind the other; anything at padded slots.
        valid: True for real objects (B, N).
        sizes: Slots of each kind; they add up to N.

    Returns:
        (B, K, D); zero for a kind of which an event has none.
    """
    sizes = list(sizes)
    parts = zip(x.split(sizes, 1), valid.split(sizes, 1), strict=True)
    return torch.stack([masked_mean(part, real) for part, real in parts], 1)  # (B, K, D)


def any_of_kind(valid: Tensor, sizes: Sequence[int]) -> Tensor:
    """Tell of which kinds an event has an object, (B, K); arguments as in `kind_means`."""
    return torch.stack([real.any(1) for real in valid.split(list(sizes), 1)], 1)


class CrossBlock(Protocol):
    """What lets tokens see others, such as a block of a Set Transformer."""

    def __call__(self, x: Tensor, plan: Plan, context: Tensor) -> Tensor:
        """Update the tokens x (B, M, D) by what they see of the context (B, N, D)."""


class SeedPooling(nn.Module):
    """Let learned vectors ask the objects of an event: pooling by multihead attention, PMA.

    Source: arXiv:1810.00825.

    Args:
        dim: Number of features D.
        num_seeds: Number of learned vectors S, each of which becomes an answer.
        block: Updates the seeds by what they see of the objects.

    Raises:
        ValueError: If there is no seed.
    """

    no_weight_decay = ("seeds",)

    def __init__(self, dim: int, num_seeds: int, block: CrossBlock) -> None:
        super().__init__()
        if num_seeds < 1:
            raise ValueError(f"num_seeds={num_seeds} must be at least 1")
        self.seeds = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_seeds, dim)))
        self.block = block

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Pool.

        Args:
            x: Objects (B, N, D).
            valid: True for real objects (B, N), real ones first.

        Returns:
            (B, S, D); of the seeds alone for an event without objects.
        """
        seeds = self.seeds.expand(x.shape[0], -1, -1).to(x.dtype)  # (B, S, D)
        plan = make_plan(Full(), valid, valid.new_ones(seeds.shape[:2]))
        return self.block(seeds, plan, context=x)
