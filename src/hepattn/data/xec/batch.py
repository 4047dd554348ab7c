"""Events of the liquid-xenon detector, as a network gets them."""

# B events, S sensors

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

TRUTH = ("energy", "position", "direction", "start")
"""Fields that only simulated events know; NaN in others."""


class XecBatch(NamedTuple):
    """What the sensors saw, which of them can be trusted, and the truth.

    A sensor's number is its place in `hepattn.physics.xec.sensors`. What is not known is zero,
    and only ``valid`` and ``time_valid`` say so: no value stands for "unknown".

    Attributes:
        photons: Photons that reached each sensor (B, S).
        time: When the first of them did, in ns after ``first_time`` (B, S).
        valid: False for sensors without a number of photons, such as dead ones (B, S).
        time_valid: True for sensors with a usable time, which saw enough photons (B, S).
        energy: Energy of the photon that hit the detector, in MeV (B).
        position: Where it first interacted, as (u, v, w) in cm (B, 3).
        direction: Where it flew, a unit vector (B, 3).
        start: When it was emitted, in ns after ``first_time`` (B).
        first_time: Earliest time of a bright sensor, in ns on the clock of the run (B), float64.
        weight: Weight of the event for training and figures (B).
        run: Number of the run (B).
        event: Number of the event in its run (B).
        index: Row in the source (B).
    """

    photons: Tensor
    time: Tensor
    valid: Tensor
    time_valid: Tensor
    energy: Tensor
    position: Tensor
    direction: Tensor
    start: Tensor
    first_time: Tensor
    weight: Tensor
    run: Tensor
    event: Tensor
    index: Tensor


def take(batch: XecBatch, rows: Tensor) -> XecBatch:
    """Return some events, in the given order.

    Args:
        batch: The events.
        rows: Their places (B) in int64.
    """
    return XecBatch(*(field[rows] for field in batch))


def join(batches: Iterable[XecBatch]) -> XecBatch:
    """Put events one after the other.

    Args:
        batches: At least one.
    """
    return XecBatch(*map(torch.cat, zip(*batches, strict=True)))
