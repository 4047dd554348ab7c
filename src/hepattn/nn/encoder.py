"""The transformer encoder: tokens in, tokens out, order and padding kept."""

# B events, R registers, N tokens, D features, H heads, C coordinates

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from hepattn.nn.arrangement import Arrangement
from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.dense import Dense
from hepattn.nn.encoder_layer import EncoderLayer
from hepattn.nn.norm import NormName, make_norm
from hepattn.nn.positional import Coordinate
from hepattn.nn.residual import ValueResidualMode
from hepattn.nn.rotary import Rotation
from hepattn.ops.attention import Full, Pattern, Plan, Registers, Window, make_plan

NormPlacement = Literal["pre", "post", "hybrid"]


class Encoder(nn.Module):
    """A stack of encoder layers over the tokens of each event.

    Tokens can be sorted by a key first, so that a window holds neighbours; they return in the
    order in which they came. Without a window and whatever else knows places the encoder is
    permutation equivariant.

    Args:
        dim: Number of features D.
        depth: Number of layers.
        attention: Heads, gates and backend of the attention layers.
        dense: Builds the dense net of a layer from the number of features; a `Dense` with its
            defaults, or with other options, or a `MixtureOfExperts`.
        window: Width of the attention window in tokens; every token sees every other by default.
        wrap: Whether places are cyclic in each event's own number of tokens, for the window and
            for ``offset_bias``.
        num_registers: Learned tokens that see and are seen by all (arXiv:2309.16588).
        register_stride: Tokens between one register and the next; all registers lead by default.
        norm: Which norm.
        norm_placement: Where the norms stand; ``hybrid`` is pre-norm in the first layer and
            normalises queries, keys, values and the input of the dense net after that
            (arXiv:2503.04598).
        value_residual: How later layers mix in the first layer's attention values
            (arXiv:2410.17897).
        layer_scale: Initial factor of the branches (arXiv:2103.17239); none by default.
        drop_path: Probability of dropping a branch for a whole event (arXiv:1603.09382).
        offset_bias: Builds a score bias of the distance in tokens, such as `ALiBi`, from the
            number of heads; all layers share it. None by default.
        rotary: Builds a rotary encoding, such as `Rotary` or `HelixRotary`, from a head's features
            and the number of key heads; all layers share it. Registers stand at position zero, so
            that scores with them know absolute positions. None by default.
        read_out: What comes out: all ``tokens``, or the first register alone (``cls``).

    Raises:
        ValueError: If options contradict each other, or a layer refuses its options.
    """

    no_weight_decay = ("registers",)

    def __init__(
        self,
        dim: int,
        depth: int,
        attention: AttentionOptions = AttentionOptions(),  # noqa: B008 (frozen)
        dense: Callable[[int], nn.Module] = Dense,
        window: int | None = None,
        wrap: bool = False,
        num_registers: int = 0,
        register_stride: int | None = None,
        norm: NormName = "LayerNorm",
        norm_placement: NormPlacement = "pre",
        value_residual: ValueResidualMode = "none",
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        offset_bias: Callable[[int], nn.Module] | None = None,
        rotary: Callable[[int, int], nn.Module] | None = None,
        read_out: Literal["tokens", "cls"] = "tokens",
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1")
        if wrap and window is None and offset_bias is None:
            raise ValueError(
                "wrap=True needs a window or an offset_bias; without them places do not matter"
            )
        if num_registers == 0 and (register_stride is not None or read_out == "cls"):
            raise ValueError(
                f"register_stride={register_stride} and read_out={read_out!r} need at least one "
                "register; set num_registers"
            )
        if attention.position_init is not None and rotary is None:
            raise ValueError(
                f"position_init={attention.position_init} needs a rotary encoding of positions"
            )
        self.dim = dim
        self.read_out = read_out
        self.pattern: Pattern = Full(wrap) if window is None else Window(window, wrap)
        self.register_layout = Registers(num_registers, register_stride)
        registers = nn.Parameter(0.02 * torch.randn(num_registers, dim))  # (R, D)
        self.register_parameter("registers", registers if num_registers else None)
        self.layers = nn.ModuleList()
        for index in range(depth):
            between = norm_placement == "hybrid" and index > 0
            layer_attention = Attention(
                dim,
                attention,
                qkv_norm=norm if between else None,
                value_residual=value_residual if index > 0 else "none",
            )
            placement = "post" if norm_placement == "post" else "between" if between else "pre"
            layer = EncoderLayer(
                layer_attention, dense(dim), dim, norm, placement, layer_scale, drop_path
            )
            self.layers.append(layer)
        self.norm = make_norm(norm, dim) if norm_placement == "pre" else nn.Identity()
        self.offset_bias = None if offset_bias is None else offset_bias(attention.num_heads)
        self.rotary = None
        if rotary is not None:
            self.rotary = rotary(attention.features_per_head(dim), attention.value_heads)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """The coordinates whose raw columns ``positions`` must hold, in order."""
        return () if self.rotary is None else self.rotary.coordinates

    def forward(
        self,
        x: Tensor,
        valid: Tensor,
        key: Tensor | None = None,
        bias: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Let the tokens of each event attend to each other.

        Args:
            x: Tokens (B, N, D), finite at padded slots too.
            valid: True for real tokens (B, N), real ones first.
            key: What to sort the tokens by (B, N); they keep their order by default.
            bias: Additive score bias (B or 1, H or 1, N, N) in the order of the tokens, finite at
                padded slots too; registers have none.
            positions: Raw coordinates (B, N, C) for the rotary encoding; padding may hold anything.

        Returns:
            (B, N, D), zero at padded slots; (B, D) if the first register is read out.

        Raises:
            ValueError: If positions are missing, or given without need.
        """
        if (positions is not None) != bool(self.coordinates):
            names = ", ".join(coordinate.name for coordinate in self.coordinates)
            raise ValueError(f"the rotary encoding takes positions for: {names or 'nothing'}")
        if positions is not None:
            positions = positions.masked_fill(~valid.unsqueeze(-1), 0.0)
        arrangement = Arrangement(valid, key, self.register_layout)
        x = arrangement.tokens(x, self.registers)  # (B, R + N, D)
        bias = None if bias is None else arrangement.pairs(bias)
        plan = make_plan(self.pattern, arrangement.valid, registers=self.register_layout)
        offset_bias = None if self.offset_bias is None else self.offset_bias(plan.max_offset)
        rotation = self._rotation(plan, arrangement, positions)
        values = None
        for layer in self.layers:
            x, layer_values = layer(x, plan, bias, offset_bias, values, rotation)
            values = layer_values if values is None else values
        if self.read_out == "cls":
            return self.norm(x[:, 0])  # (B, D)
        x = self.norm(arrangement.restore(x))  # (B, N, D)
        return torch.where(valid.unsqueeze(-1), x, 0.0)

    def _rotation(
        self, plan: Plan, arrangement: Arrangement, positions: Tensor | None
    ) -> Rotation | None:
        if self.rotary is None:
            return None
        if positions is not None:
            # Registers stand at zero, which leaves them unturned.
            return self.rotary(arrangement.tokens(positions))
        place = plan.keys.place.masked_fill(plan.keys.is_register, 0)  # (B or 1, R + N)
        return self.rotary(place.unsqueeze(-1))
