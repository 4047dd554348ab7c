"""Faster forms of a network that a profile compares with it."""

import copy
from collections.abc import Callable, Iterable
from typing import get_args

import torch
from torch import Tensor, nn

from hepattn.deploy.activation_ranges import make_dynamic, make_static, measure_ranges
from hepattn.deploy.quantised_layers import Inputs, called_layers
from hepattn.nn.attention import set_backend
from hepattn.ops.attention import BackendName

BACKENDS: tuple[str, ...] = get_args(BackendName)
INT8 = ("int8", "int8-dynamic")
VARIANTS = (*INT8, "bfloat16", "compiled", *(name for name in BACKENDS if name != "auto"))


def make_variant(
    network: nn.Module, variant: str, training_inputs: Callable[[], Iterable[Inputs]]
) -> nn.Module:
    """Make a faster form of a network.

    Args:
        network: The network, in evaluation mode; it stays as it is.
        variant: ``int8`` of measured ranges, ``int8-dynamic``, ``bfloat16``, ``compiled``, or an
            attention backend.
        training_inputs: Called for what the network is called with in training, for ``int8``.

    Raises:
        ValueError: If the variant is unknown, or cannot be made of this network.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r} must be one of {VARIANTS}")
    network = copy.deepcopy(network)
    if variant == "bfloat16":
        _autocast(network)
    elif variant == "compiled":
        network.compile()
    elif variant in INT8:
        inputs = list(training_inputs())
        names = list(called_layers(network, inputs[:1]))
        if variant == "int8":
            make_static(network, measure_ranges(network, names, inputs))
        else:
            make_dynamic(network, names)
    else:
        set_backend(network, variant)
    return network


def _autocast(network: nn.Module) -> None:
    """Let a network compute in bfloat16; its layers keep their names, its copies do so too."""
    kind = type(network)

    def forward(self: nn.Module, *inputs: Tensor) -> object:
        with torch.autocast(inputs[0].device.type, torch.bfloat16):
            return kind.forward(self, *inputs)

    network.__class__ = type(kind.__name__, (kind,), {"forward": forward})
