"""Transformer blocks of ParT: particles that see each other, and a class token that sees them.

Tokens are packed: the real ones of all events in rows, see `Packing`.
"""

# B events, N particles, T real particles of all events, D features, H heads

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.class_attention import ClassAttention
from hepattn.nn.dense import Activation
from hepattn.nn.norm import NormName, make_norm
from hepattn.nn.packing import Packing
from hepattn.nn.residual import LayerScale
from hepattn.ops.attention import Plan
from hepattn.ops.gated_dense import gated_dense


@dataclass(frozen=True)
class BlockOptions:
    """What the blocks of a network share; the defaults are the published ones of ParT.

    Args:
        style: ``normformer`` has norms before and after attention and inside the dense net, a
            learned factor for each head and for each feature of the second residual
            (arXiv:2110.09456); ``prenorm`` has a norm before each branch and nothing else.
        attention: Heads and other options of attention.
        norm: Which norm.
        qkv_norm: Norm of queries, keys and values of each head; none by default.
        activation: Of the dense net; ``swiglu`` and ``geglu`` are gated.
        expansion: Hidden units of the dense net, in multiples of the features.
        activation_dropout: Probability of dropping a hidden unit.
        dropout: Probability of dropping a feature of a branch's output.
        layer_scale: Initial factor of both branches; none by default.
        drop_path: Probability of dropping a branch for a whole event.

    Raises:
        ValueError: If a probability or the expansion is out of range.
    """

    style: Literal["normformer", "prenorm"] = "normformer"
    attention: AttentionOptions = field(default_factory=lambda: AttentionOptions(dropout=0.1))
    norm: NormName = "LayerNorm"
    qkv_norm: NormName | None = None
    activation: Activation = "gelu"
    expansion: int = 4
    activation_dropout: float = 0.1
    dropout: float = 0.1
    layer_scale: float | None = None
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for name in ("activation_dropout", "dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0 and below 1")
        if self.expansion < 1:
            raise ValueError(f"expansion={self.expansion} must be at least 1")

    def without_dropout(self) -> "BlockOptions":
        """The same for class attention, which drops nothing."""
        attention = replace(self.attention, dropout=0.0)
        return replace(
            self, attention=attention, activation_dropout=0.0, dropout=0.0, drop_path=0.0
        )


class Branches(nn.Module):
    """What both blocks have after their attention: its residual and the dense net.

    Args:
        dim: Number of features D.
        options: What the blocks of a network share.
    """

    def __init__(self, dim: int, options: BlockOptions) -> None:
        super().__init__()
        is_normformer = options.style == "normformer"
        num_heads, hidden = options.attention.num_heads, options.expansion * dim
        self.options = options
        self.attention_norm = make_norm(options.norm, dim)
        self.head_scale = self.residual_scale = None
        self.update_norm = self.hidden_norm = nn.Identity()
        if is_normformer:
            self.head_scale = nn.Parameter(torch.ones(num_heads))
            self.update_norm = make_norm(options.norm, dim)
            self.hidden_norm = make_norm(options.norm, hidden)
            self.residual_scale = nn.Parameter(torch.ones(dim))
        self.dense_norm = make_norm(options.norm, dim)
        is_gated = options.activation != "gelu"
        self.expand = nn.Linear(dim, hidden * (2 if is_gated else 1))
        self.contract = nn.Linear(hidden, dim)
        self.hidden_dropout = nn.Dropout(options.activation_dropout)
        self.dropout = nn.Dropout(options.dropout)
        self.attention_scale = self.dense_scale = nn.Identity()
        if options.layer_scale is not None:
            self.attention_scale = LayerScale(dim, options.layer_scale)
            self.dense_scale = LayerScale(dim, options.layer_scale)

    def add_update(self, x: Tensor, update: Tensor, packing: Packing) -> Tensor:
        """Add attention's update (T, D) to the tokens (T, D)."""
        if self.head_scale is not None:
            heads = update.unflatten(-1, (len(self.head_scale), -1))  # (T, H, D / H)
            update = (heads * self.head_scale.unsqueeze(-1)).flatten(-2)
        update = self.dropout(self.update_norm(update))
        return x + self._drop_path(self.attention_scale(update), packing)

    def add_dense(self, x: Tensor, packing: Packing) -> Tensor:
        """Add the dense net's answer to the tokens (T, D)."""
        y = self.dense_norm(x)
        if self._is_chunked(y):
            expand, contract = ((net.weight, net.bias) for net in (self.expand, self.contract))
            y = gated_dense(y, expand, contract, self.options.activation)
        else:
            y = self.contract(self.hidden_norm(self.hidden_dropout(self._hidden(y))))
        y = self._drop_path(self.dense_scale(self.dropout(y)), packing)
        return x + y if self.residual_scale is None else torch.addcmul(y, x, self.residual_scale)

    def _is_chunked(self, x: Tensor) -> bool:
        """Tell whether the net goes token by token from end to end, on the CPU, with gradients.

        Whoever watches a layer, or has put another in its place, gets them one after the other.
        """
        if torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return False
        options, layers = self.options, (self.expand, self.contract)
        drops = self.training and options.activation_dropout > 0
        if options.activation == "gelu" or options.style == "normformer" or drops:
            return False
        return (
            x.device.type == "cpu"
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and all(type(net) is nn.Linear for net in layers)
            and not any(net._forward_hooks or net._forward_pre_hooks for net in layers)
        )

    def _hidden(self, x: Tensor) -> Tensor:
        x = self.expand(x)
        if self.options.activation == "gelu":
            # Fresh memory of this size costs as much time as the function.
            return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)
        x, gate = x.chunk(2, -1)
        return x * (F.silu(gate) if self.options.activation == "swiglu" else F.gelu(gate))

    def _drop_path(self, x: Tensor, packing: Packing) -> Tensor:
        """Drop the branch x (T, D) for whole events."""
        if not self.training or self.options.drop_path == 0:
            return x
        keep = 1 - self.options.drop_path
        scale = x.new_empty(packing.num_events, 1).bernoulli_(keep) / keep
        return x * packing.pack(scale.expand(-1, packing.num_slots).unsqueeze(-1))


class ParticleBlock(Branches):
    """Let the particles of an event see each other, then a dense net for each.

    Args:
        dim: Number of features D.
        options: What the blocks of a network share.
        attention: Builds the attention layer from the number of features; `Attention` by default.
    """

    def __init__(
        self,
        dim: int,
        options: BlockOptions = BlockOptions(),
        attention: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__(dim, options)
        if attention is None:
            self.attention = Attention(dim, options.attention, options.qkv_norm)
        else:
            self.attention = attention(dim)

    def forward(self, x: Tensor, plan: Plan, packing: Packing, bias: Tensor | None) -> Tensor:
        """Update the particles.

        Args:
            x: Particles (T, D).
            plan: Who may see whom.
            packing: Where the particles stand.
            bias: Additive score bias (B, H, N, N), -inf where the key is padding.

        Returns:
            (T, D)
        """
        update, _ = self.attention(self.attention_norm(x), plan, bias=bias, packing=packing)
        return self.add_dense(self.add_update(x, update, packing), packing)


class ClassBlock(Branches):
    """Let a class token of each event see itself and the event's particles (arXiv:2103.17239).

    In the ``normformer`` style the norm is of keys and values, token and particles, while the
    query is the token as it is; in the ``prenorm`` style it is of the token alone, as query and as
    key, and the particles come with a norm of their own.

    Args:
        dim: Number of features D.
        options: What the blocks of a network share.
    """

    def __init__(self, dim: int, options: BlockOptions = BlockOptions()) -> None:
        super().__init__(dim, options)
        self.attention = ClassAttention(dim, options.attention, options.qkv_norm)

    def forward(self, token: Tensor, x: Tensor, plan: Plan, packing: Packing) -> Tensor:
        """Update the class tokens.

        Args:
            token: Class tokens (B, D).
            x: Particles (T, D).
            plan: Which of the token and the particles each token sees.
            packing: Where the particles stand.

        Returns:
            (B, D)
        """
        if self.options.style == "normformer":
            query = token
            context = self.attention_norm(packing.join(token, x))
        else:
            query = self.attention_norm(token)
            context = packing.join(query, x)
        alone = Packing(None, token.shape[0], 1)
        update, _ = self.attention(
            query, plan, context=context, packing=alone, context_packing=packing.with_first()
        )
        return self.add_dense(self.add_update(token, update, alone), alone)
