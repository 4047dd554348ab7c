"""Activation functions by name."""

from typing import Literal, get_args

from torch import nn

ActivationName = Literal[
    "ReLU", "LeakyReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Softplus", "Tanh",
    "Sigmoid", "Hardswish", "ReLU6",
]  # fmt: skip


def make_activation(name: ActivationName | None) -> nn.Module:
    """Build the activation function of that name, as torch calls it; the identity for None.

    Args:
        name: Name of the class in `torch.nn`.

    Raises:
        ValueError: If the name is unknown.
    """
    if name is None:
        return nn.Identity()
    if name not in get_args(ActivationName):
        raise ValueError(f"activation {name!r} must be one of {get_args(ActivationName)}")
    return getattr(nn, name)()
