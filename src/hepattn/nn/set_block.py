"""Blocks of a Set Transformer: tokens look at their set or at another one (arXiv:1810.00825)."""

# B events, M tokens, T real tokens of all events, N tokens of the other set, D features

from dataclasses import dataclass, field

from torch import Tensor, nn

from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.dense import Activation, Dense
from hepattn.nn.packing import Packing
from hepattn.nn.set_norm import SetNorm
from hepattn.ops.attention import Plan


@dataclass(frozen=True)
class SetBlockOptions:
    """What the blocks of a network share.

    Args:
        attention: Heads and other options of attention.
        use_setnorm: Whether norms take mean and variance from all tokens of an event, see
            `SetNorm`; else from each token, as a layer norm does.
        activation: Of the dense net; ``swiglu`` and ``geglu`` are gated.
        expansion: Hidden units of the dense net, in multiples of the features.
        dropout: Probability of dropping a hidden unit.

    Raises:
        ValueError: If the probability or the expansion is out of range.
    """

    attention: AttentionOptions = field(
        default_factory=lambda: AttentionOptions(num_heads=8, head_dim=16, bias=False)
    )
    use_setnorm: bool = True
    activation: Activation = "geglu"
    expansion: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be at least 0 and below 1")
        if self.expansion < 1:
            raise ValueError(f"expansion={self.expansion} must be at least 1")

    def make_norm(self, dim: int) -> nn.Module:
        """Build a norm that is called with tokens, which of them are real and where they stand."""
        return SetNorm(dim) if self.use_setnorm else TokenNorm(dim)


class TokenNorm(nn.LayerNorm):
    """A layer norm in the place of a `SetNorm`."""

    def forward(self, x: Tensor, valid: Tensor, packing: Packing | None = None) -> Tensor:
        """Normalise each token of x (..., D), whatever the others are."""
        return super().forward(x)


class SetBlock(nn.Module):
    """Attention, then a dense net for each token, with a norm before both.

    Args:
        dim: Number of features D.
        options: What the blocks of a network share.
        has_residual: Whether attention's update is added to the tokens; else it replaces them.
    """

    def __init__(
        self, dim: int, options: SetBlockOptions = SetBlockOptions(), *, has_residual: bool = True
    ) -> None:
        super().__init__()
        self.has_residual = has_residual
        self.attention_norm = options.make_norm(dim)
        self.attention = Attention(dim, options.attention)
        self.dense_norm = options.make_norm(dim)
        self.dense = Dense(
            dim,
            hidden=options.expansion * dim,
            activation=options.activation,
            dropout=options.dropout,
        )

    def forward(
        self, x: Tensor, plan: Plan, context: Tensor | None = None, packing: Packing | None = None
    ) -> Tensor:
        """Update the tokens.

        Args:
            x: Tokens (B, M, D), or packed ones (T, D).
            plan: Who may see whom.
            context: The set to look at (B, N, D), normalised; the tokens' own by default.
            packing: Where packed tokens stand.

        Returns:
            Like ``x``.
        """
        valid = plan.query_valid
        query = self.attention_norm(x, valid, packing)
        update, _ = self.attention(query, plan, context=context, packing=packing)
        x = x + update if self.has_residual else update
        return x + self.dense(self.dense_norm(x, valid, packing))
