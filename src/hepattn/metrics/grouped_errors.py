"""Errors of several methods in groups of what they estimate."""

# J estimates, M methods, G groups

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class GroupedErrors(Metric):
    """Add up errors, method by method and group by group, in constant memory.

    Args:
        methods: Names of the methods.
        num_groups: Number G of groups.
    """

    full_state_update = False
    count: Tensor
    squares: Tensor

    def __init__(self, methods: Sequence[str], num_groups: int) -> None:
        super().__init__()
        self.methods = tuple(methods)
        for name in ("count", "total", "squares"):
            zeros = torch.zeros(len(self.methods), num_groups, dtype=torch.float64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(self, errors: Mapping[str, Tensor], group: Tensor) -> None:
        """Add errors.

        Args:
            errors: For some of the methods estimate minus truth (J), all of the same things.
            group: Number of the group of each (J).
        """
        for name, error in errors.items():
            row = self.methods.index(name)
            error = error.detach().double()
            for state, values in (
                (self.count, torch.ones_like(error)),
                (self.total, error),
                (self.squares, error.square()),
            ):
                state[row].index_add_(0, group, values)

    def compute(self) -> Tensor:
        """Root mean squares, see `root_mean_square`."""
        return self.root_mean_square()

    def root_mean_square(self) -> Tensor:
        """Root of the mean square of the errors of each method in each group (M, G)."""
        return (self.squares / self.count.clamp(min=1)).sqrt()

    def summary(self) -> dict[str, dict[str, object]]:
        """For each method with errors the root mean square and the mean, of all and by group."""
        found: dict[str, dict[str, object]] = {}
        for row, name in enumerate(self.methods):
            number = float(self.count[row].sum())
            if not number:
                continue
            found[name] = {
                "num": int(number),
                "rms": float((self.squares[row].sum() / number).sqrt()),
                "bias": float(self.total[row].sum() / number),
                "rms_of_groups": self.root_mean_square()[row].tolist(),
            }
        return found
