"""Linear layers of eight bits, and putting them where a network has ordinary ones."""

# P rows (tokens), K inputs, D outputs

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.deploy.int8 import (
    ACTIVATION_LEVELS,
    MIDDLE,
    exact_product,
    pack,
    packed_product,
    quantise_activation,
    quantise_rows,
    quantise_weight,
)

Inputs = tuple[Tensor, ...]


class Int8Weight(nn.Module):
    """A linear layer whose weight is stored in eight bits and unpacked for each product.

    Args:
        weight_int8: Integers (D, K).
        weight_scale: Scales (D).
        bias: Bias (D), or None.
    """

    weight_int8: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, weight_int8: Tensor, weight_scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight_int8", weight_int8)
        self.register_buffer("weight_scale", weight_scale)
        self.register_buffer("bias", bias)

    @property
    def weight(self) -> Tensor:
        """The weight in floating numbers (D, K), for networks that also read it themselves."""
        return self.weight_int8 * self.weight_scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., K) to (..., D)."""
        return F.linear(x, self.weight.to(x.dtype), self.bias)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        num_outputs, num_inputs = self.weight_int8.shape
        return f"{num_inputs} -> {num_outputs}"


class Int8Dynamic(Int8Weight):
    """A linear layer in integers; each row's range is found as it comes.

    Args:
        weight_int8: Integers (D, K).
        weight_scale: Scales (D).
        bias: Bias (D), or None.
    """

    def __init__(self, weight_int8: Tensor, weight_scale: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight_int8, weight_scale, bias)
        self.register_buffer("one", torch.ones(()), persistent=False)
        self.register_buffer("middle", torch.full((), float(MIDDLE)), persistent=False)
        self._pack()
        self.register_load_state_dict_post_hook(lambda layer, _: layer._pack())

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., K) to (..., D)."""
        rows, scale = quantise_rows(x.float().flatten(0, -2))  # (P, K), (P, 1)
        out = self._multiply(rows, self.one, self.middle)  # (P, D)
        out = out.mul_(scale) if self.bias is None else out.mul_(scale).add_(self.bias)
        return out.to(x.dtype).unflatten(0, x.shape[:-1])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"packed": None}  # which cannot be copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._pack()

    def _pack(self) -> None:
        self.packed = pack(self.weight_int8)

    def _multiply(
        self, rows: Tensor, scale: Tensor, zero: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        if self.packed is None or rows.device.type != "cpu" or torch.compiler.is_exporting():
            return exact_product(rows, scale, zero, self.weight_int8, self.weight_scale, bias)
        return packed_product(rows, scale, zero, self.packed, self.weight_scale, bias)


class Int8Static(Int8Dynamic):
    """A linear layer in integers; the range of its input was measured before.

    Args:
        weight_int8: Integers (D, K).
        weight_scale: Scales (D).
        bias: Bias (D), or None.
        input_scale: Step of the input, a scalar.
        input_zero: Integer that means zero, a scalar.
    """

    input_scale: Tensor
    input_zero: Tensor

    def __init__(
        self,
        weight_int8: Tensor,
        weight_scale: Tensor,
        bias: Tensor | None,
        input_scale: Tensor,
        input_zero: Tensor,
    ) -> None:
        super().__init__(weight_int8, weight_scale, bias)
        self.register_buffer("input_scale", input_scale)
        self.register_buffer("input_zero", input_zero)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., K) to (..., D)."""
        rows = x.float().flatten(0, -2)  # (P, K)
        rows = quantise_activation(rows, self.input_scale, self.input_zero)
        out = self._multiply(rows, self.input_scale, self.input_zero, self.bias)  # (P, D)
        return out.to(x.dtype).unflatten(0, x.shape[:-1])


class FakeQuantised(nn.Module):
    """A floating linear layer that rounds as `Int8Static` does, to be trained.

    The gradient passes the rounding unchanged and stops where an input leaves its range
    (straight-through estimator, arXiv:1308.3432).

    Args:
        layer: The layer; its parameters are trained.
        input_scale: Step of the input, a scalar.
        input_zero: Integer that means zero, a scalar.
    """

    input_scale: Tensor
    input_zero: Tensor

    def __init__(self, layer: nn.Linear, input_scale: Tensor, input_zero: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.register_buffer("input_scale", input_scale)
        self.register_buffer("input_zero", input_zero)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., K) to (..., D)."""
        low, high = -self.input_zero, ACTIVATION_LEVELS - self.input_zero
        clipped = x.clamp(low * self.input_scale, high * self.input_scale)
        with torch.no_grad():
            integers = quantise_activation(x, self.input_scale, self.input_zero)
            rounded = (integers - self.input_zero) * self.input_scale
            weight, scale = quantise_weight(self.weight)
            weight = weight * scale[:, None]
        x = clipped + (rounded - clipped).detach()
        return F.linear(x, self.weight + (weight - self.weight).detach(), self.bias)

    def convert(self) -> Int8Static:
        """Return the layer in integers."""
        return Int8Static(*_parts(self), self.input_scale, self.input_zero)


def to_int8_weight(layer: nn.Linear) -> Int8Weight:
    """Store the weight of a layer in eight bits."""
    return Int8Weight(*_parts(layer))


def to_int8_dynamic(layer: nn.Linear) -> Int8Dynamic:
    """Make a layer in integers that finds the range of each row."""
    return Int8Dynamic(*_parts(layer))


def called_layers(
    network: nn.Module, batches: Iterable[Inputs], min_features: int = 32
) -> dict[str, nn.Linear]:
    """Find the linear layers that are worth eight bits.

    Layers that no forward calls are left out: their weights are read in other ways. So are those
    with few inputs or outputs, which cost nothing and often see raw quantities.

    Args:
        network: The network, in evaluation mode.
        batches: What the network is called with; one batch is enough.
        min_features: Fewest inputs and outputs of a layer.

    Returns:
        Layers by their names.

    Raises:
        ValueError: If there is none.
    """
    found: dict[str, nn.Linear] = {}
    wide = {
        name: layer
        for name, layer in network.named_modules()
        if type(layer) is nn.Linear and min(layer.weight.shape) >= min_features
    }

    def note(name: str, _: Tensor) -> None:
        found[name] = wide[name]

    watch_inputs(network, wide, batches, note)
    if not found:
        raise ValueError(
            f"the network calls no linear layer with at least min_features={min_features} inputs "
            "and outputs; lower it"
        )
    return {name: layer for name, layer in wide.items() if name in found}


@torch.no_grad()
def watch_inputs(
    network: nn.Module,
    names: Iterable[str],
    batches: Iterable[Inputs],
    note: Callable[[str, Tensor], None],
) -> None:
    """Run a network and hand over what some of its layers get.

    Args:
        network: The network.
        names: Names of layers.
        batches: What the network is called with.
        note: Called with the name of the layer and its input.
    """
    handles = [
        network.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: note(name, args[0])
        )
        for name in names
    ]
    try:
        with torch.compiler.set_stance("force_eager"):  # graphs know nothing of hooks
            for inputs in batches:
                network(*inputs)
    finally:
        for handle in handles:
            handle.remove()


def replace_layers(
    network: nn.Module, names: Sequence[str], make: Callable[[str, nn.Module], nn.Module]
) -> None:
    """Put other layers where a network has these, also under the other names of a shared layer.

    Args:
        network: The network; it is changed.
        names: Names of layers.
        make: Called with the name and the old layer.
    """
    new: dict[nn.Module, nn.Module] = {}
    for name in names:
        new[network.get_submodule(name)] = make(name, network.get_submodule(name))
    for parent in list(network.modules()):
        for child, layer in parent._modules.items():
            if layer in new:
                parent._modules[child] = new[layer]


def _parts(layer: nn.Linear | FakeQuantised) -> tuple[Tensor, Tensor, Tensor | None]:
    bias = None if layer.bias is None else layer.bias.detach().clone()
    return *quantise_weight(layer.weight.detach()), bias
