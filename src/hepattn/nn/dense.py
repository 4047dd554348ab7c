"""Dense networks with one hidden layer, gated or plain."""

# D features, K hidden units

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["swiglu", "geglu", "gelu"]


class Dense(nn.Module):
    """A dense network with one hidden layer.

    Gated activations multiply one half of a doubled hidden layer with the activated other
    half: ``x1 * silu(x2)`` or ``x1 * gelu(x2)`` (arXiv:2002.05202).

    Args:
        dim: Number of input features.
        dim_out: Number of output features; as many as the input has by default.
        hidden: Hidden units after the gate; twice the input by default.
        activation: ``swiglu``, ``geglu`` or plain ``gelu``.
        bias: Whether the linear maps have a bias.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        hidden: int | None = None,
        activation: Activation = "swiglu",
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = hidden or 2 * dim
        self.gated = activation != "gelu"
        self.activation = F.silu if activation == "swiglu" else F.gelu
        self.expand = nn.Linear(dim, hidden * (2 if self.gated else 1), bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.contract = nn.Linear(hidden, dim_out or dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., D) to (..., dim_out)."""
        x = self.expand(x)  # (..., 2K) or (..., K)
        if self.gated:
            x, gate = x.chunk(2, -1)  # (..., K) each
            x = x * self.activation(gate)
        else:
            x = self.activation(x)
        return self.contract(self.dropout(x))
