"""Real tokens without the padding between them, for everything that works token by token."""

# B events, N tokens, T real tokens of all events

from typing import NamedTuple

import torch
from torch import Tensor


class Packing(NamedTuple):
    """Where the real tokens of a padded batch stand.

    Attributes:
        index: Their places in the batch of B · N slots (T,); None if all slots are kept.
        num_events: Events B.
        num_slots: Slots N of an event.
    """

    index: Tensor | None
    num_events: int
    num_slots: int

    def pack(self, x: Tensor) -> Tensor:
        """Take the real tokens of x (B, N, ...), (T, ...)."""
        x = x.flatten(0, 1)  # (B N, ...)
        return x if self.index is None else x.index_select(0, self.index)

    def unpack(self, x: Tensor) -> Tensor:
        """Put tokens (T, ...) back into a padded batch (B, N, ...), zero elsewhere."""
        if self.index is not None:
            slots = x.new_zeros(self.num_events * self.num_slots, *x.shape[1:])
            x = slots.index_copy_(0, self.index, x)
        return x.unflatten(0, (self.num_events, self.num_slots))  # (B, N, ...)

    def with_first(self) -> "Packing":
        """The packing of `join`'s tokens: each event has one more, its first."""
        index = None
        if self.index is not None:
            event = torch.arange(self.num_events, device=self.index.device)
            moved = self.index + self.index // self.num_slots + 1
            index = torch.cat([event * (self.num_slots + 1), moved])  # (B + T,)
        return Packing(index, self.num_events, self.num_slots + 1)

    def join(self, first: Tensor, x: Tensor) -> Tensor:
        """Give each event a further token (B, D) before its tokens (T, D), for `with_first`."""
        if self.index is not None:
            return torch.cat([first, x])  # (B + T, D)
        return torch.cat([first.unsqueeze(1), self.unpack(x)], 1).flatten(0, 1)


def make_packing(valid: Tensor) -> Packing:
    """Find the real tokens, True in ``valid`` (B, N).

    Graphs that are exported keep the padding, as their shapes must not depend on the data.
    """
    if torch.compiler.is_exporting():
        return Packing(None, *valid.shape)
    index = valid.flatten().nonzero().squeeze(1)  # (T,)
    return Packing(None if len(index) == valid.numel() else index, *valid.shape)
