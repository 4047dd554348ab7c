"""Combine what is known of an event as a whole with what is known of its objects."""

# B events, N objects, F columns of an event, D features, O outputs

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.ops.attention import Full, make_plan

EmbeddingFusionMode = Literal[
    "sum", "mean", "add", "cat", "cat_proj", "learn", "gate", "attn", "res_attn"
]
ATTENTION = AttentionOptions(num_heads=4, head_dim=16, bias=False, dropout=0.1)


class Sum(nn.Module):
    """Add two things of one shape.

    Args:
        factor: Of the sum; one half for the mean.
    """

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, flat: Tensor, jagged: Tensor) -> Tensor:
        """Add flat (..., D) and jagged (..., D)."""
        return (flat + jagged) * self.factor


class Concatenation(nn.Module):
    """Write the two one behind the other."""

    def forward(self, flat: Tensor, jagged: Tensor) -> Tensor:
        """Join flat (..., D) and jagged (..., D') as (..., D' + D)."""
        return torch.cat([jagged, flat.expand(*jagged.shape[:-1], -1)], -1)


class PairLinear(nn.Module):
    """A linear map of the two, one behind the other.

    Args:
        dim: Number of features D of each, and of the answer.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        bound = (2 * dim) ** -0.5
        self.flat = nn.Linear(dim, dim)
        self.jagged = nn.Linear(dim, dim, bias=False)
        for part in self.parameters():  # as one linear map of 2 D features starts
            nn.init.uniform_(part, -bound, bound)

    def forward(self, flat: Tensor, jagged: Tensor) -> Tensor:
        """Map flat (..., D) and jagged (..., D) to (..., D)."""
        return self.flat(flat) + self.jagged(jagged)


class Blend(nn.Module):
    """Average the two with one learned weight, at first ``sigmoid(0.5)`` for the flat one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, flat: Tensor, jagged: Tensor) -> Tensor:
        """Average flat (..., D) and jagged (..., D)."""
        share = self.weight.sigmoid()
        return share * flat + (1 - share) * jagged


class Gate(nn.Module):
    """Average the two, each feature with a weight that depends on both.

    Args:
        dim: Number of features D of each.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = PairLinear(dim)

    def forward(self, flat: Tensor, jagged: Tensor) -> Tensor:
        """Average flat (..., D) and jagged (..., D)."""
        return jagged + self.gate(flat, jagged).sigmoid() * (flat - jagged)


class CrossAttention(nn.Module):
    """Let vectors look at the columns of their event.

    Args:
        dim: Number of features D.
        attention: Heads and other options.
        has_residual: Whether what is seen is added to the vectors, rather than replacing them.
    """

    def __init__(self, dim: int, attention: AttentionOptions, has_residual: bool) -> None:
        super().__init__()
        self.attention = Attention(dim, attention)
        self.has_residual = has_residual

    def forward(self, flat: Tensor, jagged: Tensor) -> Tensor:
        """Look.

        Args:
            flat: Columns of the events, as vectors (B, F, D).
            jagged: Vectors that look at them (B, N, D).

        Returns:
            (B, N, D)
        """
        seen = flat.new_ones(flat.shape[:2], dtype=torch.bool)
        looking = jagged.new_ones(jagged.shape[:2], dtype=torch.bool)
        update, _ = self.attention(jagged, make_plan(Full(), seen, looking), context=flat)
        return jagged + update if self.has_residual else update


@dataclass(frozen=True)
class EmbeddingFusionOptions:
    """How the embedding of an event's own columns enters those of its objects.

    Args:
        mode: ``sum``, ``add`` and ``mean`` of the two; ``cat``, where each has half of the
            features; ``cat_proj``, a linear map of both; ``learn``, an average with one learned
            weight; ``gate``, one with weights that depend on both; ``attn``, where objects look at
            the event's columns, each a vector of its own; ``res_attn``, where what they see is
            added to them.
        attention: For ``attn`` and ``res_attn``.

    Raises:
        ValueError: If an option has no effect.
    """

    mode: EmbeddingFusionMode = "add"
    attention: AttentionOptions = ATTENTION

    def __post_init__(self) -> None:
        _check_attention(self.mode, self.attention)

    @property
    def has_attention(self) -> bool:
        """Whether the event's columns are needed as a vector each."""
        return self.mode in ("attn", "res_attn")

    def dims(self, dim: int) -> tuple[int, int]:
        """Features of the event's embedding and of an object's, for this many together."""
        return (dim // 2, dim - dim // 2) if self.mode == "cat" else (dim, dim)


@dataclass(frozen=True)
class OutputFusionOptions:
    """How the outputs of a network of an event's columns and of one of its objects become one.

    Args:
        mode: ``add``; ``cat``, a linear map of both; ``learn``, an average with one learned weight;
            ``gate``, one with weights that depend on both; ``attn``, where the output of the
            objects' network looks at the event's columns, each a vector of its own, and what it
            sees is added to it.
        dim: Number of features D in which ``attn`` looks.
        attention: For ``attn``.

    Raises:
        ValueError: If an option has no effect.
    """

    mode: Literal["add", "cat", "learn", "gate", "attn"] = "add"
    dim: int = 64
    attention: AttentionOptions = ATTENTION

    def __post_init__(self) -> None:
        _check_attention(self.mode, self.attention)
        if self.dim < 1:
            raise ValueError(f"dim={self.dim} must be at least 1")
        if self.dim != 64 and not self.has_attention:
            raise ValueError(f"dim={self.dim} has no effect with mode={self.mode!r}; use 'attn'")

    @property
    def has_attention(self) -> bool:
        """Whether the event's columns are needed as a vector each, not an output made of them."""
        return self.mode == "attn"


def _check_attention(mode: str, attention: AttentionOptions) -> None:
    if attention != ATTENTION and mode not in ("attn", "res_attn"):
        raise ValueError(f"attention has no effect with mode={mode!r}; use 'attn'")


class EmbeddingFusion(nn.Module):
    """Let the embedding of each event into those of its objects.

    Args:
        dim: Number of features D of the answer.
        options: How.
    """

    def __init__(
        self,
        dim: int,
        options: EmbeddingFusionOptions = EmbeddingFusionOptions(),
    ) -> None:
        super().__init__()
        self.has_attention = options.has_attention
        if options.has_attention:
            has_residual = options.mode == "res_attn"
            self.fuse = CrossAttention(dim, options.attention, has_residual)
        else:
            self.fuse = _make(options.mode, dim)

    def forward(self, flat: Tensor, jagged: Tensor) -> Tensor:
        """Fuse.

        Args:
            flat: Embeddings of the events (B, D), or with attention of their columns (B, F, D).
            jagged: Embeddings of their objects (B, N, D).

        Returns:
            (B, N, D)
        """
        return self.fuse(flat if self.has_attention else flat.unsqueeze(1), jagged)


class OutputFusion(nn.Module):
    """Make one output of two.

    Args:
        num_outputs: Number of outputs O.
        options: How.
    """

    def __init__(
        self,
        num_outputs: int,
        options: OutputFusionOptions = OutputFusionOptions(),
    ) -> None:
        super().__init__()
        self.has_attention = options.has_attention
        if not options.has_attention:
            self.fuse = _make("cat_proj" if options.mode == "cat" else options.mode, num_outputs)
            return
        dim = options.dim
        self.query = nn.Linear(num_outputs, dim)
        self.fuse = CrossAttention(dim, options.attention, has_residual=True)
        self.out = nn.Linear(dim, num_outputs)

    def forward(self, flat: Tensor, jagged: Tensor) -> Tensor:
        """Fuse.

        Args:
            flat: Outputs of the network of the event's columns (B, O), or for ``attn`` the columns
                as vectors (B, F, D), of as many features as ``options.dim``.
            jagged: Outputs of the network of the objects (B, O).

        Returns:
            (B, O)
        """
        if not self.has_attention:
            return self.fuse(flat, jagged)
        query = self.query(jagged).unsqueeze(1)  # (B, 1, D)
        return self.out(self.fuse(flat, query).squeeze(1))


def _make(mode: str, dim: int) -> nn.Module:
    if mode in ("sum", "add", "mean"):
        return Sum(0.5 if mode == "mean" else 1.0)
    if mode == "cat":
        return Concatenation()
    if mode == "learn":
        return Blend()
    return Gate(dim) if mode == "gate" else PairLinear(dim)
