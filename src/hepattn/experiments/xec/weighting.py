"""Weights that make a distribution of the training events flat."""

# B events

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hepattn.data.error import DataError
from hepattn.data.xec import XecBatch

Variable = Literal["light", "energy", "start", "direction", "position"]
BINS: dict[Variable, int] = {"light": 5, "energy": 30, "start": 30, "direction": 20, "position": 10}


@dataclass(frozen=True)
class Weighting:
    """Weigh events by the inverse of how frequent they are in bins of a variable.

    Args:
        variable: ``light``, the sum of all photons; ``energy``; ``start``; ``direction``, bins of
            polar angle and azimuth; ``position``, bins of u, v and w.
        num_bins: Bins along each of its axes, between the smallest and the largest value; 5, 30,
            30, 20 and 10 by default.
        power: 1 makes the distribution flat, ½ half-way so.

    Raises:
        ValueError: If a number is not positive.
    """

    variable: Variable = "light"
    num_bins: int | None = None
    power: float = 1.0

    def __post_init__(self) -> None:
        if self.num_bins is not None and self.num_bins < 1:
            raise ValueError(f"num_bins={self.num_bins} must be at least 1")
        if self.power <= 0:
            raise ValueError(f"power={self.power} must be positive")

    def weigh(self, events: XecBatch) -> XecBatch:
        """Set the weights of events, 1 on average.

        Args:
            events: All training events.

        Raises:
            DataError: If the variable is not known.
        """
        axes = self._axes(events).double()  # (B, axes)
        if not axes.isfinite().all():
            raise DataError(f"data.weighting wants {self.variable}, which these events lack")
        num_bins = self.num_bins or BINS[self.variable]
        low, high = axes.amin(0), axes.amax(0)
        places = ((axes - low) / (high - low).clamp(min=1e-12) * num_bins).long()
        flat = torch.zeros(len(axes), dtype=torch.int64)
        for place in places.clamp(max=num_bins - 1).unbind(1):
            flat = flat * num_bins + place
        count = torch.bincount(flat)[flat].double()
        weight = count.pow(-self.power)
        return events._replace(weight=(weight / weight.mean()).float())

    def _axes(self, events: XecBatch) -> Tensor:
        if self.variable == "light":
            return events.photons.sum(1, keepdim=True)
        if self.variable == "direction":
            x, y, z = events.direction.unbind(1)
            return torch.stack([z.clamp(-1, 1).acos(), torch.atan2(y, -x)], 1)
        values = getattr(events, self.variable)
        return values.view(len(values), -1)
