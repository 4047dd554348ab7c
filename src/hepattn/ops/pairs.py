"""Real pairs of particles in rows, and the matrix of all pairs that is made of them."""

# B events, N particles, P pairs of all events, H heads

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


class Pairs(NamedTuple):
    """The pairs of a padded batch.

    Attributes:
        first: Place of the first particle i in the batch of B · N slots (P,).
        second: Place of the second particle j (P,).
        is_mirrored: Whether each pair stands for (i, j) and (j, i), and i ≥ j.
        num_events: Events B.
        num_slots: Slots N of an event.
    """

    first: Tensor
    second: Tensor
    is_mirrored: bool
    num_events: int
    num_slots: int

    def entries(self) -> Tensor:
        """Place of (i, j) among the B · N · N entries of a matrix of each event (P,)."""
        return self.first * self.num_slots + self.second % self.num_slots

    def mirrored_entries(self) -> Tensor:
        """Place of (j, i) among the entries (P,)."""
        return self.second * self.num_slots + self.first % self.num_slots


def list_pairs(valid: Tensor, *, is_mirrored: bool = True, with_self: bool = True) -> Pairs:
    """List the pairs of real particles, event by event.

    Args:
        valid: True for real particles (B, N).
        is_mirrored: Whether to list only one of (i, j) and (j, i).
        with_self: Whether a particle is a pair with itself.
    """
    B, N = valid.shape
    wanted = valid.new_ones(N, N)
    if is_mirrored:
        wanted = wanted.tril()
    if not with_self:
        wanted.fill_diagonal_(False)
    entry = (valid[:, :, None] & valid[:, None, :] & wanted).flatten().nonzero().squeeze(1)  # (P,)
    first = entry // N
    second = first - first % N + entry % N
    return Pairs(first, second, is_mirrored, B, N)


def spread_pairs(values: Tensor, pairs: Pairs, hidden: Tensor | None = None) -> Tensor:
    """Write the values of pairs into a matrix of each event.

    Args:
        values: Values of the pairs (H, P).
        pairs: The pairs.
        hidden: Columns that hold -inf, as a mask of keys does (B, N).

    Returns:
        (B, H, N, N), zero where there is neither a pair nor a hidden column.
    """
    return _Spread.apply(values, pairs, hidden)


def pack_pairs(values: Tensor, pairs: Pairs, lengths: Tensor) -> Tensor:
    """Write the values of pairs into the matrices of all events, one after the other.

    Args:
        values: Values of the pairs (H, P).
        pairs: The pairs; real particles come first in each event.
        lengths: Particles n of each event (B,).

    Returns:
        (H, sum of n · n over events), row by row, zero where there is no pair.
    """
    square = lengths * lengths
    event = pairs.first // pairs.num_slots  # (P,)
    i, j = (place - event * pairs.num_slots for place in (pairs.first, pairs.second))
    start, length = (square.cumsum(0) - square)[event], lengths[event]
    num = values.shape[1]
    source = values.new_full((int(square.sum()),), num, dtype=torch.int64)
    number = torch.arange(num, device=values.device)
    source[start + i * length + j] = number
    if pairs.is_mirrored:
        source[start + j * length + i] = number
    rows = values.new_empty(len(values), len(source))
    for row, value in zip(rows, pad(values, (0, 1)), strict=True):
        torch.index_select(value, 0, source, out=row)
    return rows


class _Spread(torch.autograd.Function):
    """Head by head, as the processor is slow at taking or writing columns of a table."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        values: Tensor,
        pairs: Pairs,
        hidden: Tensor | None,
    ) -> Tensor:
        ctx.pairs, B, N = pairs, pairs.num_events, pairs.num_slots
        row = values.new_zeros(B, 1, N)
        if hidden is not None and hidden.any():
            row = row.masked_fill_(hidden[:, None, :], float("-inf"))
        planes = row.expand(len(values), B, N, N).contiguous()  # (H, B, N, N)
        places = [pairs.entries()]
        if pairs.is_mirrored:
            places.append(pairs.mirrored_entries())
        for plane, value in zip(planes.flatten(1), values, strict=True):
            for place in places:
                plane.index_copy_(0, place, value)
        return planes.transpose(0, 1)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, None, None]:
        pairs, planes = ctx.pairs, grad.transpose(0, 1).reshape(grad.shape[1], -1)  # (H, B N N)
        values = grad.new_empty(len(planes), len(pairs.first))  # (H, P)
        place, other = pairs.entries(), pairs.mirrored_entries()
        for value, plane in zip(values, planes, strict=True):
            torch.index_select(plane, 0, place, out=value)
            if pairs.is_mirrored:
                value.add_(plane.index_select(0, other))
        if pairs.is_mirrored:
            values.mul_(torch.where(pairs.first == pairs.second, 0.5, 1.0))
        return values, None, None
