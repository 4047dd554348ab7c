"""The autocast rule that the attention operators share."""

from collections.abc import Callable

import torch
from torch import Tensor


def register_autocast(name: str, operator: Callable[..., object], num_cast: int) -> None:
    """Let an operator compute in the dtype of an autocast region, as torch's attention does.

    Args:
        name: The operator's name in torch.
        operator: The operator.
        num_cast: How many of its first arguments are cast. Tensors in float64 and missing ones
            stay as they are.
    """
    for device_type in ("cpu", "cuda"):

        def rule(*inputs: object, device_type: str = device_type) -> object:
            cast = (_cast(x, device_type) for x in inputs[:num_cast])
            with torch.autocast(device_type, enabled=False):
                return operator(*cast, *inputs[num_cast:])

        torch.library.impl(name, f"Autocast{device_type.upper()}")(rule)


def cast_to_region(*inputs: Tensor) -> tuple[Tensor, ...]:
    """Cast tensors of one device to the dtype of the autocast region, if they are in one."""
    device_type = inputs[0].device.type
    if not torch.is_autocast_enabled(device_type):
        return inputs
    return tuple(_cast(x, device_type) for x in inputs)


def _cast(x: object, device_type: str) -> object:
    if not isinstance(x, Tensor) or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(device_type))
