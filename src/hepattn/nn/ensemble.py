"""Several networks of the same shape that answer at once, each with parameters of its own."""

# M members, B events, D features, K hidden units

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.activation import ActivationName, make_activation


class StackedLinear(nn.Module):
    """A linear map for each member, all in one matrix product.

    Args:
        num_members: Number of members M.
        dim: Number of input features D.
        dim_out: Number of output features.
    """

    no_weight_decay = ("bias",)

    def __init__(self, num_members: int, dim: int, dim_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_members, dim, dim_out))
        self.bias = nn.Parameter(torch.empty(num_members, dim_out))
        for part in (self.weight, self.bias):
            nn.init.uniform_(part, -(dim**-0.5), dim**-0.5)  # as each nn.Linear has it

    def forward(self, x: Tensor) -> Tensor:
        """Map x (M, B, D) to (M, B, dim_out)."""
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight)


class StackedLayerNorm(nn.Module):
    """A layer norm for each member.

    Args:
        num_members: Number of members M.
        dim: Number of features D.
    """

    no_weight_decay = ("weight", "bias")

    def __init__(self, num_members: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_members, dim))
        self.bias = nn.Parameter(torch.zeros(num_members, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (M, B, D)."""
        x = F.layer_norm(x, x.shape[-1:])
        return x * self.weight.unsqueeze(1) + self.bias.unsqueeze(1)


class EnsembleHead(nn.Module):
    """Heads that all read the same features and do not know of each other (arXiv:1612.01474).

    A head is an activation, hidden layers and a linear map; a hidden layer is a linear map, layer
    normalisation if wanted, an activation, dropout.

    Args:
        dim: Number of features D that the heads read.
        num_members: Number of heads M.
        hidden: Units of each hidden layer.
        activation: Of the features that are read and of the hidden layers.
        dropout: Probability of dropping a hidden unit.
        layernorm: Whether hidden layers have a layer norm.

    Raises:
        ValueError: If there are fewer than two members.
    """

    def __init__(
        self,
        dim: int,
        num_members: int,
        hidden: Sequence[int] = (64,),
        activation: ActivationName = "ReLU",
        dropout: float = 0.0,
        layernorm: bool = False,
    ) -> None:
        super().__init__()
        if num_members < 2:
            raise ValueError(f"num_members={num_members} must be at least 2 to have a spread")
        self.num_members = num_members
        layers: list[nn.Module] = [make_activation(activation)]
        for units in hidden:
            layers += [StackedLinear(num_members, dim, units)]
            layers += [StackedLayerNorm(num_members, units)] if layernorm else []
            layers += [make_activation(activation), nn.Dropout(dropout)]
            dim = units
        self.layers = nn.Sequential(*layers, StackedLinear(num_members, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Answer by all members.

        Args:
            x: Features (B, D).

        Returns:
            (B, M)
        """
        x = self.layers(x.expand(self.num_members, *x.shape))  # (M, B, 1)
        return x.squeeze(-1).T


class EnsembleNetwork(nn.Module):
    """A network whose outputs are features for the heads of an ensemble.

    Args:
        network: Maps any inputs to features (B, D).
        head: Reads them.
    """

    def __init__(self, network: nn.Module, head: EnsembleHead) -> None:
        super().__init__()
        self.network = network
        self.head = head

    def forward(self, *inputs: Tensor) -> Tensor:
        """What each member answers (B, M)."""
        return self.head(self.network(*inputs))
