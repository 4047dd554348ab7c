"""What all schedules share."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

STATE = ("last_epoch", "num_epochs", "_step_count", "_last_lr")


class Schedule(LRScheduler):
    """Base of the schedules: holds the peak rate, floor, freezing and the factor per epoch.

    Args:
        optimizer: Optimiser whose rates follow the schedule.
        num_steps: Total number of optimiser steps.
        max_lr: Peak rate; by default the optimiser's own.
        min_lr: Floor of the rate.
        freeze_step: Step from which on the formula stands still.
        epoch_factor: Factor applied once at the end of every epoch.

    Raises:
        ValueError: If an option is out of range.
    """

    interval = "step"
    needs_num_steps = False

    def __init__(
        self,
        optimizer: Optimizer,
        num_steps: int,
        *,
        max_lr: float | None = None,
        min_lr: float = 0.0,
        freeze_step: int | None = None,
        epoch_factor: float = 1.0,
    ) -> None:
        name = type(self).__name__
        if self.needs_num_steps and not math.isfinite(num_steps):
            raise ValueError(
                f"{name} needs the total number of steps, which an endless training lacks; "
                "set trainer.max_steps, or trainer.max_epochs with data of known length"
            )
        if epoch_factor <= 0:
            raise ValueError(f"{name}: epoch_factor={epoch_factor} must be positive")
        if freeze_step is not None and freeze_step < 1:
            raise ValueError(f"{name}: freeze_step={freeze_step} must be at least 1")
        own = optimizer.defaults["lr"]
        self.peak = own if max_lr is None else max_lr
        if not 0 <= min_lr <= self.peak:
            raise ValueError(f"{name}: min_lr={min_lr} must be between 0 and max_lr={self.peak}")
        self.min_lr = min_lr
        self.num_steps = num_steps
        self.freeze_step = freeze_step
        self.epoch_factor = epoch_factor
        self.num_epochs = 0
        self.ratios = [group["lr"] / own if own else 1.0 for group in optimizer.param_groups]
        super().__init__(optimizer)

    def formula(self, n: int) -> float:
        """Rate of the n-th step, n = 1, 2, ..., before floor and factor per epoch."""
        raise NotImplementedError

    def lr_at(self, n: int) -> float:
        """Rate of the n-th step for parameters that follow the optimiser's own rate."""
        n = n if self.freeze_step is None else min(n, self.freeze_step)
        return max(self.formula(n) * self.epoch_factor**self.num_epochs, self.min_lr)

    def get_lr(self) -> list[float]:
        """Rates of all groups for the coming step."""
        lr = self.lr_at(self.last_epoch + 1)
        return [max(lr * ratio, self.min_lr) for ratio in self.ratios]

    def end_epoch(self) -> None:
        """Apply the factor per epoch."""
        self.num_epochs += 1
        if self.epoch_factor == 1:
            return
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr
        self._last_lr = self.get_lr()

    def state_dict(self) -> dict[str, Any]:
        """How far the schedule is; its options stay with the config."""
        return {key: getattr(self, key) for key in STATE}
