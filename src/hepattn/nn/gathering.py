"""Objects of several kinds, each with its own padding, as one set with its padding at the end."""

# B events, N slots of all kinds, n objects of the largest event, T real objects of all events

from typing import NamedTuple

import torch
from torch import Tensor

from hepattn.nn.packing import Packing, make_packing
from hepattn.ops.sort import sort_order


class Gathering(NamedTuple):
    """Where the real objects of a batch stand, and where when each event has them first.

    Attributes:
        valid: True for real objects when each event has them first (B, n).
        packing: Where they stand then.
        given: Where they stand in the batch as it is given.
        order: Slot of the batch as given that comes i-th (B, N), in graphs that are exported, whose
            shapes must not depend on the data; else None.
    """

    valid: Tensor
    packing: Packing
    given: Packing
    order: Tensor | None

    def pack(self, x: Tensor) -> Tensor:
        """Take the real objects of x (B, N, ...) as given, (T, ...)."""
        if self.order is not None:
            order = self.order[(..., *[None] * (x.ndim - 2))].expand_as(x)  # (B, N, ...)
            return x.gather(1, order).flatten(0, 1)
        return self.given.pack(x)

    def move(self, x: Tensor) -> Tensor:
        """Put the real objects of x (B, N, ...) as given first, (B, n, ...)."""
        return self.packing.unpack(self.pack(x))


def gather_objects(valid: Tensor) -> Gathering:
    """Find the real objects and let them stand first, in the order in which they come.

    Args:
        valid: True for real objects (B, N), in any place.
    """
    if torch.compiler.is_exporting():
        slot = torch.arange(valid.shape[1], device=valid.device).expand_as(valid)
        order = sort_order(slot, valid)
        valid = valid.gather(1, order)
        packing = make_packing(valid)
        return Gathering(valid, packing, packing, order)
    lengths = valid.sum(1, keepdim=True)  # (B, 1)
    longest = max(int(lengths.max()), 1) if len(lengths) else 1
    first = torch.arange(longest, device=valid.device) < lengths  # (B, n)
    return Gathering(first, make_packing(first), make_packing(valid), None)
