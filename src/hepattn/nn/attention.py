"""Multi-head attention with projections around the attention core."""

# B events, M query tokens, N key tokens, D features, H heads, E head features

import torch
from torch import Tensor, nn

from hepattn.nn.norm import NormName, make_norm
from hepattn.nn.residual import ValueResidual, ValueResidualMode
from hepattn.ops.attention import BackendName, Plan, attention


class Attention(nn.Module):
    """Project to queries, keys and values, attend, project back.

    Args:
        dim: Number of features D.
        num_heads: Number of heads H; divides ``dim``.
        num_value_heads: Number of key and value heads, dividing ``num_heads``; as many as
            heads by default (arXiv:2305.13245).
        bias: Whether the projections have a bias.
        qkv_norm: Norm applied to queries, keys and values of each head (arXiv:2503.04598); none by
            default.
        value_residual: How to mix in the first layer's values.
        dropout: Probability of dropping an attention weight.
        similarity_init: Scale the initial query projection by this factor and let the key
            projection start as its copy: tokens first attend to those like themselves, the more
            sharply the larger the factor. Ordinary, independent projections by default.
        backend: Attention backend.

    Raises:
        ValueError: If the heads do not divide the features, or ``similarity_init`` is not positive
            or would be undone by ``qkv_norm``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        num_value_heads: int | None = None,
        bias: bool = True,
        qkv_norm: NormName | None = None,
        value_residual: ValueResidualMode = "none",
        dropout: float = 0.0,
        similarity_init: float | None = None,
        backend: BackendName = "auto",
    ) -> None:
        super().__init__()
        num_value_heads = num_value_heads or num_heads
        if dim % num_heads:
            raise ValueError(f"num_heads={num_heads} must divide dim={dim}")
        if num_heads % num_value_heads:
            raise ValueError(f"num_value_heads={num_value_heads} must divide num_heads={num_heads}")
        if similarity_init is not None and (qkv_norm is not None or similarity_init <= 0):
            raise ValueError(
                f"similarity_init={similarity_init} must be positive, and without "
                f"qkv_norm={qkv_norm}, which would undo it"
            )
        self.head_dim = dim // num_heads
        self.dropout = dropout
        self.backend: BackendName = backend
        self.query = nn.Linear(dim, dim, bias=bias)
        self.key_value = nn.Linear(dim, 2 * num_value_heads * self.head_dim, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)
        if similarity_init is not None:
            self._start_as_similarity(similarity_init, num_heads // num_value_heads)
        self.norms = None
        if qkv_norm is not None:
            self.norms = nn.ModuleList(make_norm(qkv_norm, self.head_dim) for _ in range(3))
        self.value_residual = None
        if value_residual != "none":
            self.value_residual = ValueResidual(value_residual, dim, num_value_heads)

    def forward(
        self,
        x: Tensor,
        plan: Plan,
        context: Tensor | None = None,
        bias: Tensor | None = None,
        first_values: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: Query tokens (B, M, D).
            plan: What may attend to what.
            context: Key tokens (B, N, D); the query tokens themselves by default.
            bias: Additive score bias (B or 1, H or 1, M, N).
            first_values: The first layer's values (B, Hk, N, E), for the value residual.

        Returns:
            The update of the tokens (B, M, D) and this layer's projected
            values (B, Hk, N, E).
        """
        context = x if context is None else context
        q = self._split(self.query(x))  # (B, H, M, E)
        k, v = (self._split(part) for part in self.key_value(context).chunk(2, -1))
        projected = v  # (B, Hk, N, E)
        if self.value_residual is not None:
            assert first_values is not None, "a value residual needs the first layer's values"
            v = self.value_residual(context, v, first_values)
        if self.norms is not None:
            q, k, v = (norm(part) for norm, part in zip(self.norms, (q, k, v), strict=True))
        out = attention(
            q,
            k,
            v,
            plan=plan,
            bias=bias,
            dropout=self.dropout if self.training else 0.0,
            backend=self.backend,
        )
        out = self.out(out.transpose(1, 2).flatten(2))  # (B, M, D)
        return out, projected

    @torch.no_grad()
    def _start_as_similarity(self, gain: float, repeats: int) -> None:
        """Give each key head the projection of the first query head that it serves."""
        self.query.weight.mul_(gain)
        for query, key_value in zip(
            self.query.parameters(), self.key_value.parameters(), strict=True
        ):
            heads = query.unflatten(0, (-1, self.head_dim))[::repeats]  # (Hk, E, ...)
            key_value[: len(key_value) // 2] = heads.flatten(0, 1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, H, N, E)
