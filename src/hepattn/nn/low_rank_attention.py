"""Attention to a few mixtures of the tokens instead of all (Linformer, arXiv:2006.04768)."""

# B events, N tokens, T real tokens of all events, R mixtures, D features, H heads, E head features

import torch
from torch import Tensor, nn

from hepattn.nn.attention import AttentionOptions
from hepattn.nn.packing import Packing
from hepattn.ops.attention import Full, Plan, attention, attention_weights, make_plan


class TokenMixing(nn.Module):
    """Learned weights of each place of an event in each mixture, for keys and for values.

    Args:
        rank: Mixtures R of an event.
        max_tokens: Most tokens of an event.

    Raises:
        ValueError: If the rank is not 1 to ``max_tokens``.
    """

    def __init__(self, rank: int, max_tokens: int) -> None:
        super().__init__()
        if not 1 <= rank <= max_tokens:
            raise ValueError(f"rank={rank} must be 1 to max_tokens={max_tokens}")
        self.rank, self.max_tokens = rank, max_tokens
        self.key = nn.Parameter(torch.randn(rank, max_tokens) * rank**-0.5)
        self.value = nn.Parameter(torch.randn(rank, max_tokens) * rank**-0.5)

    def places(self, valid: Tensor) -> int:
        """How many slots of a batch may hold tokens.

        Args:
            valid: True for real tokens (B, N).

        Raises:
            ValueError: If an event has more than ``max_tokens``.
        """
        num_slots = valid.shape[1]
        if torch.compiler.is_exporting() or num_slots <= self.max_tokens:
            return num_slots
        if valid[:, self.max_tokens :].any():
            raise ValueError(
                f"an event has {int(valid.sum(1).max())} tokens, more than "
                f"max_tokens={self.max_tokens}; keep fewer, or build the network for more"
            )
        return self.max_tokens


class LowRankAttention(nn.Module):
    """Multi-head attention whose keys and values are mixtures of the tokens, linear in N.

    A score bias of every two tokens is mixed as the keys are, and added before the softmax.
    The weights belong to places, so the order of the tokens matters; padding enters nowhere.

    Args:
        dim: Number of features D.
        mixing: The mixtures; several layers may share them.
        options: Heads, dropout and backend.

    Raises:
        ValueError: If the options ask for what these layers lack.
    """

    def __init__(
        self,
        dim: int,
        mixing: TokenMixing,
        options: AttentionOptions = AttentionOptions(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        for name in ("num_value_heads", "similarity_init", "position_init"):
            if getattr(options, name) is not None:
                raise ValueError(f"{name} is not for low-rank attention; leave it out")
        for name in ("output_gate", "laser"):
            if getattr(options, name):
                raise ValueError(f"{name} is not for low-rank attention; leave it out")
        self.options = options
        self.mixing = mixing
        self.head_dim = options.features_per_head(dim)
        width = options.num_heads * self.head_dim
        self.query = nn.Linear(dim, width, bias=options.bias)
        self.key_value = nn.Linear(dim, 2 * width, bias=options.bias)
        self.out = nn.Linear(width, dim, bias=options.bias)

    def forward(
        self, x: Tensor, plan: Plan, bias: Tensor | None = None, *, packing: Packing
    ) -> tuple[Tensor, None]:
        """Attend.

        Args:
            x: Real tokens of all events (T, D).
            plan: Who may see whom; everyone, but no padding.
            bias: Additive score bias (B, H, N, N), anything at padded tokens.
            packing: Where the tokens stand.

        Returns:
            The update of the tokens (T, D) and nothing else.
        """
        q, k, v, plan, bias = self._project(x, plan, bias, packing)
        out = attention(
            q,
            k,
            v,
            plan=plan,
            bias=bias,
            dropout=self.options.dropout if self.training else 0.0,
            backend=self.options.backend,
        )
        return self.out(packing.pack(out.transpose(1, 2).flatten(2))), None  # (T, D)

    def weights(
        self, x: Tensor, plan: Plan, bias: Tensor | None = None, *, packing: Packing
    ) -> Tensor:
        """Compute the weights of the attention, to look at; arguments as in `forward`.

        Returns:
            Weights of the mixtures (B, H, N, R); rows sum to one, or to zero at padding.
        """
        q, k, _, plan, bias = self._project(x, plan, bias, packing)
        return attention_weights(q, k, plan=plan, bias=bias)

    def visible(self, plan: Plan) -> Tensor:
        """True where a query sees a mixture, which is everywhere (B, 1, N, R)."""
        return plan.key_valid.new_ones(*plan.key_valid.shape, self.mixing.rank).unsqueeze(1)

    def _project(
        self, x: Tensor, plan: Plan, bias: Tensor | None, packing: Packing
    ) -> tuple[Tensor, Tensor, Tensor, Plan, Tensor | None]:
        """Make queries (B, H, N, E), and of the mixtures keys, values (B, H, R, E), plan, bias."""
        valid = plan.key_valid  # (B, N)
        num_places = self.mixing.places(valid)
        weights = [weight[:, :num_places] for weight in (self.mixing.key, self.mixing.value)]
        q = self._split(self.query(x), packing)  # (B, H, N, E)
        hidden = ~valid[:, None, :, None]
        k, v = (
            weight @ self._split(part, packing).masked_fill(hidden, 0.0)[:, :, :num_places]
            for weight, part in zip(weights, self.key_value(x).chunk(2, -1), strict=True)
        )  # (B, H, R, E)
        if bias is not None:
            bias = bias.masked_fill(~valid[:, None, None, :], 0.0)[..., :num_places]
            bias = bias @ weights[0].T  # (B, H, N, R)
        mixtures = valid.new_ones(valid.shape[0], self.mixing.rank)
        return q, k, v, make_plan(Full(), mixtures, valid), bias

    def _split(self, x: Tensor, packing: Packing) -> Tensor:
        return packing.unpack(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
