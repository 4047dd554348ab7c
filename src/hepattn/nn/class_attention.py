"""Attention of one query an event, which needs no keys and values of each token."""

# B events, N key tokens, D features, H heads, E head features

import torch
from torch import Tensor, nn

from hepattn.nn.attention import Attention
from hepattn.nn.packing import Packing
from hepattn.ops.attention import Plan


class ClassAttention(Attention):
    """`Attention` of one query an event to a context, such as that of a class token.

    Its score of a token c is q (W c + b) = (q W) c + q b, and what it gathers is V (sum of p c), as
    the weights p add up to one. So the projections W and V meet each event once instead of each
    token. Options that change keys or values token by token take the ordinary way.
    """

    def forward(
        self,
        x: Tensor,
        plan: Plan,
        context: Tensor,
        packing: Packing,
        context_packing: Packing,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            x: Query of each event (B, D).
            plan: Which tokens of the context it sees: one at least.
            context: Key tokens, packed (T, D).
            packing: Where the queries stand.
            context_packing: Where the key tokens stand.

        Returns:
            The update of the queries (B, D), and values of the tokens (B, H, N, E) if they were
            computed.
        """
        if not self._is_plain():
            return super().forward(
                x, plan, context=context, packing=packing, context_packing=context_packing
            )
        num_heads = self.options.num_heads
        to_key, to_value = self.key_value.weight.unflatten(0, (2, num_heads, -1))  # (H, E, D)
        q = self.query(x) * self.head_dim**-0.5
        q = q.unflatten(-1, (num_heads, -1)).transpose(0, 1)  # (H, B, E)
        context = context_packing.unpack(context)  # (B, N, D)
        score = (q @ to_key).transpose(0, 1) @ context.mT  # (B, H, N)
        if self.key_value.bias is not None:
            key_bias, value_bias = self.key_value.bias.unflatten(0, (2, num_heads, -1))  # (H, E)
            # It is alike for all tokens, and yet is there for those who look for its gradient.
            score = score + (q @ key_bias.unsqueeze(-1)).transpose(0, 1)
        if plan.mask is not None:
            score = score.masked_fill(~plan.mask.squeeze(2), float("-inf"))
        out = (score.softmax(-1) @ context).transpose(0, 1) @ to_value.mT  # (H, B, E)
        if self.key_value.bias is not None:
            out = out + value_bias.unsqueeze(1)
        out = out.transpose(0, 1).flatten(1)  # (B, H E)
        if self.gate is not None:
            out = out * self.gate(x).sigmoid()
        return self.out(out), None

    def _is_plain(self) -> bool:
        """Tell whether keys and values are those of a linear map, which nobody watches."""
        layer, options = self.key_value, self.options
        is_watched = bool(layer._forward_hooks or layer._forward_pre_hooks)
        return (
            type(layer) is nn.Linear
            and not is_watched
            and self.norms is None
            and not options.laser
            and options.value_heads == options.num_heads
            and options.backend == "auto"
            and not (self.training and options.dropout)
            and not torch.compiler.is_exporting()
        )
