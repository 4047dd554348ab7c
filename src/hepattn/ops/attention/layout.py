"""Where each token stands: in which event, at which place, among how many."""

# B sequences, N tokens, R registers

from typing import NamedTuple

import torch
from torch import Tensor

from hepattn.ops.attention.pattern import Registers

NO_EVENT = -1


class Layout(NamedTuple):
    """Where the tokens of a batch stand; each field (B, N), or (1, N) if alike in all sequences.

    Attributes:
        event: Event of the sequence that the token belongs to; negative for padding.
        place: Place among the event's keys, registers not counted; a query's centre.
        num_keys: Keys of the event, registers not counted.
        is_register: Whether the token is a register.
    """

    event: Tensor
    place: Tensor
    num_keys: Tensor
    is_register: Tensor


def make_layout(event: Tensor, index: Tensor, length: Tensor, registers: Registers) -> Layout:
    """Tell registers and other tokens apart.

    Args:
        event: Event of each token, negative for padding (B, N).
        index: Place of each token in its event, registers counted (B, N).
        length: Tokens of its event, registers counted (B, N).
        registers: Which tokens are registers.
    """
    num_keys = (length - registers.num).clamp(min=0)
    before = _registers_before(index, num_keys, registers)
    is_register = _registers_before(index + 1, num_keys, registers) > before
    return Layout(event, index - before, num_keys, is_register & (event >= 0))


def register_places(num_keys: Tensor, registers: Registers) -> Tensor:
    """Find where the registers stand in each event.

    Args:
        num_keys: Tokens of each event, registers not counted (B,).
        registers: Which tokens are registers.

    Returns:
        (B, R), ascending.
    """
    register = torch.arange(registers.num, device=num_keys.device).expand(num_keys.shape[0], -1)
    if registers.stride is None:
        return register
    return torch.minimum(register * registers.stride, num_keys[:, None]) + register


def offsets(queries: Layout, keys: Layout, *, wrap: bool) -> Tensor:
    """Count the tokens from each query's centre to each key (B or 1, M, N), in int32.

    With ``wrap`` the smallest one of the cyclic distances, in [-((n - 1) // 2), n // 2].
    """
    offset = keys.place.int()[:, None, :] - queries.place.int()[:, :, None]  # (B, M, N)
    if not wrap:
        return offset
    return cyclic(offset, queries.num_keys.int().clamp(min=1)[:, :, None])


def cyclic(offset: Tensor, num_keys: Tensor | int) -> Tensor:
    """Find the smallest one of the offsets that are equal on a ring of so many keys."""
    below = (num_keys - 1) // 2
    return torch.remainder(offset + below, num_keys) - below


def query_layout(
    index: Tensor,
    event: Tensor | int,
    num_queries: Tensor,
    num_keys: Tensor,
    centres: Tensor | None,
) -> Layout:
    """Put queries at their centres among the keys.

    Args:
        index: Place of each query among the queries of its event (B or 1, M).
        event: Event of each query.
        num_queries: Queries of its event (B, M or 1).
        num_keys: Keys of its event, registers not counted (B, M or 1).
        centres: Place of each query among the keys (B, M); evenly spread by default.

    Raises:
        TypeError: If the centres are no whole numbers.
        ValueError: If their shape does not fit.
    """
    real = index < num_queries  # (B, M)
    # Padded queries match no padded key.
    event = torch.where(real, event, NO_EVENT - 1)
    if centres is None:
        place = index * num_keys // num_queries.clamp(min=1)  # (B, M)
    else:
        if centres.dtype != torch.int64:
            raise TypeError(f"centres have dtype {centres.dtype}, must be torch.int64: places")
        if centres.shape != real.shape:
            raise ValueError(
                f"centres have shape {tuple(centres.shape)}, must be {tuple(real.shape)}: one for "
                "each query"
            )
        place = centres
    return Layout(event, place, num_keys.expand_as(real), torch.zeros_like(real))


def _registers_before(index: Tensor, num_keys: Tensor, registers: Registers) -> Tensor:
    """Count the registers that stand before a place of an event."""
    count = index
    if registers.stride is not None:
        period = registers.stride + 1
        count = torch.maximum((index + period - 1) // period, index - num_keys)
    return count.clamp(min=0, max=registers.num)
