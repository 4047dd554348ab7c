"""The encoder of the x-transformers package behind the interface of our own."""

# B events, N tokens, D features, H heads

import warnings
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor, nn

from hepattn.nn.norm import NormName
from hepattn.nn.positional import Coordinate
from hepattn.ops.sort import invert, sort_order, take

NORMS = {"LayerNorm": {}, "RMSNorm": {"use_rmsnorm": True}, "DyT": {"use_dynamic_tanh": True}}
PLACES = {
    None: {},
    "rotary": {"rotary_pos_emb": True},
    "alibi": {"alibi_pos_bias": True},
}


class XTransformerEncoder(nn.Module):
    """A peer of `Encoder`: pre-norm layers of x-transformers with SwiGLU dense nets.

    Every token sees every other; there are no windows, registers or kernels of our own, so that
    attention takes time in proportion to N². Take `Encoder` for those.

    Args:
        dim: Number of features D.
        depth: Number of layers.
        num_heads: Number of attention heads; divides ``dim``.
        num_value_heads: Number of key and value heads; as many as heads by default.
        hidden: Hidden units of the dense nets; twice ``dim`` by default.
        norm: Which norm.
        value_residual: Whether later layers mix in the first layer's attention values, by a learned
            weight for each token (arXiv:2410.17897).
        output_gate: Whether attention's output is gated by the token.
        laser: Whether to attend over exponentials of the values (arXiv:2411.03493). Values are
            softly clamped to 15 here.
        places: What the places in the sequence do: turn queries and keys (``rotary``), lower
            the scores of distant tokens (``alibi``), or nothing, which keeps the encoder
            permutation equivariant.
        dropout: Probability of dropping a hidden unit of the dense nets.
        attention_dropout: Probability of dropping an attention weight.

    Raises:
        ValueError: If the heads do not divide the features or each other, or are too small.
    """

    read_out = "tokens"
    coordinates: tuple[Coordinate, ...] = ()

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int = 8,
        num_value_heads: int | None = None,
        hidden: int | None = None,
        norm: NormName = "RMSNorm",
        value_residual: bool = False,
        output_gate: bool = False,
        laser: bool = False,
        places: Literal["rotary", "alibi"] | None = None,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        num_value_heads = num_heads if num_value_heads is None else num_value_heads
        if dim % num_heads:
            raise ValueError(f"num_heads={num_heads} must divide dim={dim}")
        if num_heads % num_value_heads:
            raise ValueError(f"num_value_heads={num_value_heads} must divide num_heads={num_heads}")
        head_dim = dim // num_heads
        if places == "rotary" and head_dim < 4:
            raise ValueError(f"places='rotary' needs at least 4 features a head, got {head_dim}")
        self.dim = dim
        self.encoder = _package().Encoder(
            dim=dim,
            depth=depth,
            heads=num_heads,
            attn_dim_head=head_dim,
            attn_kv_heads=num_value_heads,
            attn_flash=True,
            attn_gate_values=output_gate,
            attn_laser=laser,
            attn_dropout=attention_dropout,
            ff_mult=(hidden or 2 * dim) / dim,
            ff_glu=True,
            ff_swish=True,
            ff_dropout=dropout,
            add_value_residual=value_residual,
            rotary_emb_dim=head_dim // 2 * 2,
            verbose=False,
            **NORMS[norm],
            **PLACES[places],
        )
        self.knows_places = places is not None

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
            key: What to sort the tokens by (B, N); without ``places`` order changes nothing.
            bias: Additive score bias (B or 1, H or 1, N, N); not together with ``places``.
            positions: Not taken; there for the interface.

        Returns:
            (B, N, D), zero at padded slots.

        Raises:
            ValueError: If a bias comes on top of ``places``, or positions are given.
        """
        if positions is not None:
            raise ValueError("x-transformers takes no coordinates; use Encoder for positions")
        if bias is not None and self.knows_places:
            raise ValueError("x-transformers takes a bias or places, not both; use Encoder")
        order = None
        if key is not None and self.knows_places:
            order = sort_order(key, valid)
            x = take(x, order)
        # An event without tokens sees its padding, or a softmax over nothing would be NaN.
        mask = valid | ~valid.any(1, keepdim=True)
        if bias is not None:
            bias = bias.expand(x.shape[0], -1, -1, -1)
        x = self.encoder(x, mask=mask, attn_bias=bias)  # (B, N, D)
        if order is not None:
            x = take(x, invert(order))
        return torch.where(valid.unsqueeze(-1), x, 0.0)


def _package() -> ModuleType:
    """Import x-transformers, which takes seconds and uses a part of torch that is to go."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        import x_transformers
    return x_transformers
