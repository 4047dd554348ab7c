"""The transformer encoder: tokens in, tokens out, order and padding kept."""

# B events, R registers, N tokens, D features, H heads

from typing import Literal

import torch
from torch import Tensor, nn

from hepattn.nn.attention import Attention
from hepattn.nn.dense import Activation, Dense
from hepattn.nn.norm import NormName, make_norm
from hepattn.nn.residual import DropPath, LayerScale, ValueResidualMode
from hepattn.ops.attention import BackendName, Full, Pattern, Plan, Window, make_plan
from hepattn.ops.sort import sort_order, take

NormPlacement = Literal["pre", "post", "hybrid"]


class EncoderLayer(nn.Module):
    """Attention and a dense net, each a branch of the residual stream.

    The norm stands before each branch (``pre``), after each sum (``post``), or, from the second
    layer of a ``hybrid`` encoder on, on queries, keys and values and between the two branches
    (arXiv:2503.04598).

    Args:
        attention: Attention layer.
        dense: Dense net.
        dim: Number of features D.
        norm: Which norm.
        placement: Where the norms stand: ``pre``, ``post``, or ``between`` (hybrid layers).
        layer_scale: Initial factor of both branches; none by default.
        drop_path: Probability of dropping a branch for a whole event.
    """

    def __init__(
        self,
        attention: Attention,
        dense: Dense,
        dim: int,
        norm: NormName = "LayerNorm",
        placement: Literal["pre", "post", "between"] = "pre",
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.placement = placement
        self.attention = attention
        self.dense = dense
        self.attention_norm = None if placement == "between" else make_norm(norm, dim)
        self.dense_norm = make_norm(norm, dim)
        self.attention_branch = _branch(dim, layer_scale, drop_path)
        self.dense_branch = _branch(dim, layer_scale, drop_path)

    def forward(
        self,
        x: Tensor,
        plan: Plan,
        bias: Tensor | None = None,
        first_values: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Update the tokens.

        Args:
            x: Tokens (B, N, D).
            plan: What may attend to what.
            bias: Additive score bias (B or 1, H or 1, N, N).
            first_values: The first layer's attention values, for the value residual.

        Returns:
            The tokens (B, N, D) and this layer's attention values (B, Hk, N, E).
        """
        pre = self.placement == "pre"
        y = self.attention_norm(x) if pre else x
        y, values = self.attention(y, plan, bias=bias, first_values=first_values)
        x = x + self.attention_branch(y)
        if self.placement == "post":
            x = self.attention_norm(x)
        elif self.placement == "between":
            x = self.dense_norm(x)
        y = self.dense_norm(x) if pre else x
        x = x + self.dense_branch(self.dense(y))
        return (self.dense_norm(x) if self.placement == "post" else x), values


class Encoder(nn.Module):
    """A stack of encoder layers over the tokens of each event.

    Tokens can be sorted by a key first, so that a window holds neighbours; they return in the
    order in which they came. Without a window the encoder is permutation equivariant.

    Args:
        dim: Number of features D.
        depth: Number of layers.
        num_heads: Number of attention heads.
        window: Width of the attention window in tokens; every token sees every other by default.
        wrap: Whether the window is cyclic in each event's own number of tokens.
        num_registers: Learned tokens that see and are seen by all (arXiv:2309.16588).
        hidden: Hidden units of the dense nets; twice ``dim`` by default.
        activation: Activation of the dense nets.
        norm: Which norm.
        norm_placement: Where the norms stand; ``hybrid`` is pre-norm in the first layer and
            normalises queries, keys, values and the input of the dense net after that
            (arXiv:2503.04598).
        value_residual: How later layers mix in the first layer's attention values
            (arXiv:2410.17897).
        layer_scale: Initial factor of the branches (arXiv:2103.17239); none by default.
        drop_path: Probability of dropping a branch for a whole event (arXiv:1603.09382).
        dropout: Probability of dropping a hidden unit of the dense nets.
        attention_dropout: Probability of dropping an attention weight.
        bias: Whether the linear maps have a bias.
        similarity_init: Let attention start as a similarity of this sharpness, see `Attention`:
            with a wide window of which few tokens matter, training finds them much sooner.
        backend: Attention backend.

    Raises:
        ValueError: If ``wrap`` is asked for without a window, or a layer refuses its options.
    """

    no_weight_decay = ("registers",)

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int = 8,
        window: int | None = None,
        wrap: bool = False,
        num_registers: int = 0,
        hidden: int | None = None,
        activation: Activation = "swiglu",
        norm: NormName = "LayerNorm",
        norm_placement: NormPlacement = "pre",
        value_residual: ValueResidualMode = "none",
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        bias: bool = True,
        similarity_init: float | None = None,
        backend: BackendName = "auto",
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1")
        if wrap and window is None:
            raise ValueError("wrap=True needs a window; without one every token sees every other")
        self.dim = dim
        self.pattern: Pattern = Full() if window is None else Window(window, wrap, num_registers)
        registers = nn.Parameter(0.02 * torch.randn(num_registers, dim))  # (R, D)
        self.register_parameter("registers", registers if num_registers else None)
        self.layers = nn.ModuleList()
        for index in range(depth):
            between = norm_placement == "hybrid" and index > 0
            attention = Attention(
                dim,
                num_heads,
                bias=bias,
                qkv_norm=norm if between else None,
                value_residual=value_residual if index > 0 else "none",
                dropout=attention_dropout,
                similarity_init=similarity_init,
                backend=backend,
            )
            dense = Dense(dim, hidden=hidden, activation=activation, bias=bias, dropout=dropout)
            placement = "post" if norm_placement == "post" else "between" if between else "pre"
            layer = EncoderLayer(attention, dense, dim, norm, placement, layer_scale, drop_path)
            self.layers.append(layer)
        self.norm = make_norm(norm, dim) if norm_placement == "pre" else nn.Identity()

    def forward(
        self, x: Tensor, valid: Tensor, key: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """Let the tokens of each event attend to each other.

        Args:
            x: Tokens (B, N, D), finite at padded slots too.
            valid: True for real tokens (B, N), real ones first.
            key: What to sort the tokens by (B, N); they keep their order by default.
            bias: Additive score bias (B or 1, H or 1, N, N) in the order of the tokens; not
                together with a key or registers.

        Returns:
            (B, N, D), zero at padded slots.

        Raises:
            ValueError: If a bias comes with a key or registers.
        """
        num_registers = 0 if self.registers is None else len(self.registers)
        if bias is not None and (key is not None or num_registers):
            raise ValueError("a dense bias can't be combined with sorting or registers")
        mask = valid
        if key is not None:
            order, inverse = sort_order(key, valid)
            x = take(x, order)
        if self.registers is not None:
            registers = self.registers.expand(len(x), -1, -1).to(x.dtype)
            x = torch.cat([registers, x], 1)  # (B, R + N, D)
            mask = torch.cat([valid.new_ones(len(x), num_registers), valid], 1)  # (B, R + N)
        plan = make_plan(self.pattern, mask)
        values = None
        for layer in self.layers:
            x, layer_values = layer(x, plan, bias, values)
            values = layer_values if values is None else values
        x = self.norm(x[:, num_registers:])  # (B, N, D)
        if key is not None:
            x = take(x, inverse)
        return torch.where(valid.unsqueeze(-1), x, 0.0)


def _branch(dim: int, layer_scale: float | None, drop_path: float) -> nn.Sequential:
    scale = [] if layer_scale is None else [LayerScale(dim, layer_scale)]
    return nn.Sequential(*scale, DropPath(drop_path))
