"""Attention that looks at pairs alone: who sees whom follows from the pairwise bias."""

# B events, N tokens, T real tokens of all events, D features, H heads, E head features

from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.packing import Packing
from hepattn.ops.attention import Plan


class PairAttention(nn.Module):
    """Average values with the softmax of the score bias, without queries and keys.

    A block of ParT takes it in the place of `Attention`, with as many heads as the bias has; 64 of
    them are the interaction attention of arXiv:2407.08682.

    Args:
        dim: Number of features D.
        num_heads: Heads H.
        dropout: Probability of dropping a weight.

    Raises:
        ValueError: If the heads do not divide the features.
    """

    def __init__(self, dim: int, num_heads: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads={num_heads} must divide dim={dim}")
        self.num_heads = num_heads
        self.dropout = dropout
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, plan: Plan, bias: Tensor | None, packing: Packing
    ) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: Tokens (T, D).
            plan: Not used: the bias says what is padding.
            bias: Score bias (B, H, N, N), -inf where the key is padding.
            packing: Where the tokens stand.

        Returns:
            The update of the tokens (T, D) and the values (B, H, N, E).

        Raises:
            ValueError: If there is no bias.
        """
        if bias is None:
            raise ValueError("PairAttention sees the pairwise bias alone; give every block one")
        values = packing.unpack(self.value(x)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        weights = F.dropout(bias.softmax(-1), self.dropout, self.training).to(values.dtype)
        out = (weights @ values).transpose(1, 2).flatten(2)  # (B, N, D)
        return self.out(packing.pack(out)), values
