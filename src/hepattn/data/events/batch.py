"""Events as a network gets them."""

# B events, F columns of an event, K kinds of objects, P slots of a kind, N slots of all kinds,
# A auxiliary columns

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class EventBatch(NamedTuple):
    """Events with their objects, as raw columns; categorical ones hold the values of the file.

    Attributes:
        events: Columns of the events (B, F); F may be 0.
        vectors: Four-vectors (E, px, py, pz) in GeV of the objects of all kinds, one kind behind
            the other (B, N, 4); zero at padded slots and for kinds without them.
        valid: True for real objects (B, N), in each kind real ones first.
        objects: For each kind its columns (B, P, F of the kind); the P of all kinds add up to N.
        label: Number of the class (B), -1 where it is not known.
        weight: Weight of the event for training and figures (B), of either sign.
        auxiliary: Columns of the events that losses and plots want and the network does not see
            (B, A).
        index: Number of the event in its source (B).
    """

    events: Tensor
    vectors: Tensor
    valid: Tensor
    objects: tuple[Tensor, ...]
    label: Tensor
    weight: Tensor
    auxiliary: Tensor
    index: Tensor


def take(batch: EventBatch, rows: Tensor) -> EventBatch:
    """Return some events, in the given order.

    Args:
        batch: The events.
        rows: Their places (B) in int64.
    """
    return EventBatch(
        *(
            tuple(x[rows] for x in field) if isinstance(field, tuple) else field[rows]
            for field in batch
        )
    )


def join(batches: Iterable[EventBatch]) -> EventBatch:
    """Put events one after the other.

    Args:
        batches: At least one.
    """
    return EventBatch(
        *(
            tuple(map(torch.cat, zip(*parts, strict=True)))
            if isinstance(parts[0], tuple)
            else torch.cat(parts)
            for parts in zip(*batches, strict=True)
        )
    )
