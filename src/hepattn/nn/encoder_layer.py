"""One layer of a transformer encoder."""

# B events, N tokens, D features, H heads

from typing import Literal

from torch import Tensor, nn

from hepattn.nn.attention import Attention
from hepattn.nn.moe import apply_dense
from hepattn.nn.norm import NormName, make_norm
from hepattn.nn.residual import DropPath, LayerScale
from hepattn.nn.rotary import Rotation
from hepattn.ops.attention import Plan


class EncoderLayer(nn.Module):
    """Attention and a dense net, each a branch of the residual stream.

    The norm stands before each branch (``pre``), after each sum (``post``), or, from the second
    layer of a ``hybrid`` encoder on, on queries, keys and values and between the two branches
    (arXiv:2503.04598).

    Args:
        attention: Attention layer.
        dense: Dense net or mixture of experts.
        dim: Number of features D.
        norm: Which norm.
        placement: Where the norms stand: ``pre``, ``post``, or ``between`` (hybrid layers).
        layer_scale: Initial factor of both branches; none by default.
        drop_path: Probability of dropping a branch for a whole event.
    """

    def __init__(
        self,
        attention: Attention,
        dense: nn.Module,
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
        offset_bias: Tensor | None = None,
        first_values: Tensor | None = None,
        rotary: Rotation | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Update the tokens.

        Args:
            x: Tokens (B, N, D).
            plan: What may attend to what.
            bias: Additive score bias (B or 1, H or 1, N, N).
            offset_bias: Score bias of each offset between two tokens (H or 1, 2K + 1).
            first_values: The first layer's attention values, for the value residual.
            rotary: Rotation of queries and keys.

        Returns:
            The tokens (B, N, D) and this layer's attention values (B, Hk, N, E).
        """
        pre = self.placement == "pre"
        y = self.attention_norm(x) if pre else x
        y, values = self.attention(
            y,
            plan,
            bias=bias,
            offset_bias=offset_bias,
            first_values=first_values,
            rotary=rotary,
        )
        x = x + self.attention_branch(y)
        if self.placement == "post":
            x = self.attention_norm(x)
        elif self.placement == "between":
            x = self.dense_norm(x)
        y = self.dense_norm(x) if pre else x
        x = x + self.dense_branch(apply_dense(self.dense, y, plan.query_valid))
        return (self.dense_norm(x) if self.placement == "post" else x), values


def _branch(dim: int, layer_scale: float | None, drop_path: float) -> nn.Sequential:
    scale = [] if layer_scale is None else [LayerScale(dim, layer_scale)]
    return nn.Sequential(*scale, DropPath(drop_path))
