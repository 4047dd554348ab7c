"""Multi-head attention with projections around the attention core."""

# B events, M query tokens, N key tokens, D features, H heads, E head features

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.laser import exponentiate, logarithm
from hepattn.nn.norm import NormName, make_norm
from hepattn.nn.packing import Packing
from hepattn.nn.residual import ValueResidual, ValueResidualMode
from hepattn.nn.rotary import Rotation, rotate
from hepattn.ops.attention import BackendName, Plan, attention, attention_weights


@dataclass(frozen=True)
class AttentionOptions:
    """Options that the attention layers of a network share.

    Args:
        num_heads: Number of heads H; divides the number of features.
        num_value_heads: Number of key and value heads, dividing ``num_heads``; as many as
            heads by default (arXiv:2305.13245).
        head_dim: Features E of a head; the heads share the features of a token by default.
        bias: Whether the projections have a bias.
        dropout: Probability of dropping an attention weight.
        output_gate: Whether each feature of the output is multiplied by a sigmoid of the query
            token before the output projection; the gates start three quarters open
            (AlphaFold 2, doi:10.1038/s41586-021-03819-2).
        laser: Whether to average exponentials of the values and take the logarithm of the
            result, which lets larger gradients through small weights (arXiv:2411.03493). Not in
            float16.
        similarity_init: Scale the initial query projection by this factor and let the key
            projection start as its copy: tokens first attend to those like themselves, the more
            sharply the larger the factor. With a wide window of which few tokens matter, training
            finds them much sooner. Ordinary, independent projections by default.
        position_init: Let the biases of queries and keys start as constants, which a rotary
            encoding turns, so that tokens first attend to those at the same place, whose scores
            are about this number above those of others. Off by default.
        backend: Attention backend.

    Raises:
        ValueError: If the value heads do not divide the heads, or a number is out of range.
    """

    num_heads: int = 8
    num_value_heads: int | None = None
    head_dim: int | None = None
    bias: bool = True
    dropout: float = 0.0
    output_gate: bool = False
    laser: bool = False
    similarity_init: float | None = None
    position_init: float | None = None
    backend: BackendName = "auto"

    def __post_init__(self) -> None:
        if self.num_heads < 1:
            raise ValueError(f"num_heads={self.num_heads} must be at least 1")
        if self.value_heads < 1 or self.num_heads % self.value_heads:
            raise ValueError(
                f"num_value_heads={self.num_value_heads} must divide num_heads={self.num_heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be at least 0 and below 1")
        if self.head_dim is not None and self.head_dim < 1:
            raise ValueError(f"head_dim={self.head_dim} must be at least 1")
        for name in ("similarity_init", "position_init"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value} must be positive")
        if self.position_init is not None and not self.bias:
            raise ValueError(f"position_init={self.position_init} needs bias=True")

    @property
    def value_heads(self) -> int:
        """The number of key and value heads."""
        return self.num_heads if self.num_value_heads is None else self.num_value_heads

    def features_per_head(self, dim: int) -> int:
        """Features of each head of a layer with that many features.

        Raises:
            ValueError: If the heads do not divide the features and have no number of their own.
        """
        if self.head_dim is not None:
            return self.head_dim
        if dim % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} must divide dim={dim}")
        return dim // self.num_heads


class Attention(nn.Module):
    """Project to queries, keys and values, attend, project back.

    Args:
        dim: Number of features D.
        options: Heads and what else a network's attention layers share.
        qkv_norm: Norm applied to queries, keys and values of each head (arXiv:2503.04598); none by
            default.
        value_residual: How to mix in the first layer's values.

    Raises:
        ValueError: If the heads do not divide the features, or ``similarity_init`` or
            ``position_init`` would be undone by ``qkv_norm``.
    """

    def __init__(
        self,
        dim: int,
        options: AttentionOptions = AttentionOptions(),
        qkv_norm: NormName | None = None,
        value_residual: ValueResidualMode = "none",
    ) -> None:
        super().__init__()
        for name in ("similarity_init", "position_init"):
            value = getattr(options, name)
            if value is not None and qkv_norm is not None:
                raise ValueError(
                    f"{name}={value} would be undone by qkv_norm={qkv_norm}; use one of them"
                )
        self.options = options
        self.head_dim = options.features_per_head(dim)
        bias, width = options.bias, options.num_heads * self.head_dim
        num_value_heads = options.value_heads
        self.query = nn.Linear(dim, width, bias=bias)
        self.key_value = nn.Linear(dim, 2 * num_value_heads * self.head_dim, bias=bias)
        self.out = nn.Linear(width, dim, bias=bias)
        if options.similarity_init is not None:
            self._start_as_similarity(options.similarity_init)
        if options.position_init is not None:
            for part in (self.query.bias, self.key_value.bias.chunk(2)[0]):
                start_at_positions(part, self.head_dim, options.position_init)
        self.norms = None
        if qkv_norm is not None:
            self.norms = nn.ModuleList(make_norm(qkv_norm, self.head_dim) for _ in range(3))
        self.value_residual = None
        if value_residual != "none":
            self.value_residual = ValueResidual(value_residual, dim, num_value_heads)
        self.gate = None
        if options.output_gate:
            self.gate = nn.Linear(dim, width)
            nn.init.zeros_(self.gate.weight)
            nn.init.ones_(self.gate.bias)

    def forward(
        self,
        x: Tensor,
        plan: Plan,
        context: Tensor | None = None,
        bias: Tensor | None = None,
        offset_bias: Tensor | None = None,
        first_values: Tensor | None = None,
        position: Tensor | None = None,
        context_position: Tensor | None = None,
        rotary: Rotation | None = None,
        context_rotary: Rotation | None = None,
        packing: Packing | None = None,
        context_packing: Packing | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: Query tokens (B, M, D).
            plan: What may attend to what.
            context: Key tokens (B, N, D); the query tokens themselves by default.
            bias: Additive score bias (B or 1, H or 1, M, N).
            offset_bias: Score bias of each offset between two tokens (H or 1, 2K + 1).
            first_values: The first layer's values (B, Hk, N, E), for the value residual.
            position: Encoding of the queries' positions (B, M, D), added where queries are made,
                and without a context keys, but not where values are (arXiv:2005.12872).
            context_position: The same for the keys of a context (B, N, D).
            rotary: Rotation of the queries, and without a context of the keys, see `Rotary`.
            context_rotary: Rotation of a context's keys.
            packing: Where the query tokens stand if they are given without padding (T, D), as their
                update is then; not with a value residual.
            context_packing: The same for a context.

        Returns:
            The update of the tokens (B, M, D) and this layer's projected
            values (B, Hk, N, E).

        Raises:
            ValueError: If positions are given for one side only, or missing for ``position_init``,
                or packed tokens have a value residual.
        """
        q, k, v, projected = self._project(
            x,
            context,
            first_values,
            position,
            context_position,
            rotary,
            context_rotary,
            packing,
            context_packing,
        )
        peak = None
        if self.options.laser:
            v, peak = exponentiate(v, plan)
        out = attention(
            q,
            k,
            v,
            plan=plan,
            bias=bias,
            offset_bias=offset_bias,
            dropout=self.options.dropout if self.training else 0.0,
            backend=self.options.backend,
        )
        if peak is not None:
            out = logarithm(out, peak)
        out = out.transpose(1, 2).flatten(2)  # (B, M, D)
        if packing is not None:
            out = packing.pack(out)  # (T, D)
        if self.gate is not None:
            out = out * self.gate(x).sigmoid()
        return self.out(out), projected

    def weights(
        self,
        x: Tensor,
        plan: Plan,
        context: Tensor | None = None,
        bias: Tensor | None = None,
        offset_bias: Tensor | None = None,
        first_values: Tensor | None = None,
        position: Tensor | None = None,
        context_position: Tensor | None = None,
        rotary: Rotation | None = None,
        context_rotary: Rotation | None = None,
        packing: Packing | None = None,
        context_packing: Packing | None = None,
    ) -> Tensor:
        """Compute the weights of the attention, to look at; arguments as in `forward`.

        Returns:
            (B, H, M, N); rows sum to one, or to zero where nothing is visible.
        """
        q, k, _, _ = self._project(
            x,
            context,
            first_values,
            position,
            context_position,
            rotary,
            context_rotary,
            packing,
            context_packing,
        )
        return attention_weights(q, k, plan=plan, bias=bias, offset_bias=offset_bias)

    def _project(
        self,
        x: Tensor,
        context: Tensor | None,
        first_values: Tensor | None,
        position: Tensor | None,
        context_position: Tensor | None,
        rotary: Rotation | None,
        context_rotary: Rotation | None,
        packing: Packing | None = None,
        context_packing: Packing | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Make queries (B, H, M, E), keys, values and the values before any residual."""
        self._check_positions(context, context_position, rotary, context_rotary)
        if context is None:
            context, context_position, context_rotary = x, position, rotary
            context_packing = packing
        if self.value_residual is not None and context_packing is not None:
            raise ValueError("packed tokens have no value residual; give padded tokens")
        q = self.query(x if position is None else x + position)
        q = self._split(q, packing)  # (B, H, M, E)
        k, v = self._keys_and_values(context, context_position, context_packing)
        projected = v  # (B, Hk, N, E)
        if self.value_residual is not None:
            assert first_values is not None, "a value residual needs the first layer's values"
            v = self.value_residual(context, v, first_values)
        if self.norms is not None:
            q, k, v = (norm(part) for norm, part in zip(self.norms, (q, k, v), strict=True))
        if rotary is not None:
            q = rotate(q, rotary)
        if context_rotary is not None:
            k = rotate(k, context_rotary)
        return q, k, v, projected

    def _check_positions(
        self,
        context: Tensor | None,
        context_position: Tensor | None,
        rotary: Rotation | None,
        context_rotary: Rotation | None,
    ) -> None:
        if context is None and (context_position is not None or context_rotary is not None):
            raise ValueError("context_position and context_rotary need a context")
        if context is not None and (rotary is None) != (context_rotary is None):
            raise ValueError("rotary and context_rotary turn queries and keys together; give both")
        if self.options.position_init is not None and rotary is None:
            raise ValueError(f"position_init={self.options.position_init} needs a rotary encoding")

    def _keys_and_values(
        self, context: Tensor, position: Tensor | None, packing: Packing | None
    ) -> tuple[Tensor, ...]:
        """Project the context (B, N, D), or packed, to keys and values, both (B, Hk, N, E)."""
        if position is None:
            return self._split(self.key_value(context), packing).chunk(2, 1)
        weights = self.key_value.weight.chunk(2)
        biases = (None, None) if self.key_value.bias is None else self.key_value.bias.chunk(2)
        keys = F.linear(context + position, weights[0], biases[0])
        values = F.linear(context, weights[1], biases[1])
        return self._split(keys, packing), self._split(values, packing)

    @torch.no_grad()
    def _start_as_similarity(self, gain: float) -> None:
        """Give each key head the projection of the first query head that it serves."""
        repeats = self.options.num_heads // self.options.value_heads
        self.query.weight.mul_(gain)
        for query, key_value in zip(
            self.query.parameters(), self.key_value.parameters(), strict=True
        ):
            heads = query.unflatten(0, (-1, self.head_dim))[::repeats]  # (Hk, E, ...)
            key_value[: len(key_value) // 2] = heads.flatten(0, 1)

    def _split(self, x: Tensor, packing: Packing | None = None) -> Tensor:
        x = x if packing is None else packing.unpack(x)  # (B, N, H E)
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, H, N, E)


def set_backend(network: nn.Module, backend: BackendName) -> None:
    """Let all attention layers of a network use a backend.

    Args:
        network: Any module with attention layers in it: those with `AttentionOptions`.
        backend: The backend.

    Raises:
        ValueError: If there are none.
    """
    layers = [
        layer
        for layer in network.modules()
        if isinstance(getattr(layer, "options", None), AttentionOptions)
    ]
    if not layers:
        raise ValueError(
            f"attention_backend={backend} has no effect: {type(network).__name__} has no attention "
            "layers of this library"
        )
    for layer in layers:
        layer.options = replace(layer.options, backend=backend)


@torch.no_grad()
def start_at_positions(bias: Tensor, head_dim: int, score: float) -> None:
    """Make a bias, of queries or keys, such that equal positions have this score.

    The first feature of each pair that a rotary encoding turns becomes a constant.

    Args:
        bias: Bias of all heads (H E).
        head_dim: Features E of a head.
        score: Score of two tokens at one place.
    """
    num_pairs = head_dim // 2
    constant = (score * head_dim**0.5 / num_pairs) ** 0.5
    start = torch.tensor([constant, 0.0]).repeat(num_pairs)
    bias.unflatten(0, (-1, head_dim))[:, : 2 * num_pairs] = start
