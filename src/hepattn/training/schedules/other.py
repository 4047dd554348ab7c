"""Schedules of torch and of packages, with what Lightning has to know of them."""

from collections.abc import Callable
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


class Other(LRScheduler):
    """A schedule that knows neither the number of steps nor when it steps itself.

    It is built here and then used as it is::

        class_path: hepattn.training.schedules.Other
        init_args:
          schedule: {class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 10}}
          interval: epoch

    Args:
        optimizer: Optimiser whose rates follow the schedule.
        num_steps: Total number of optimiser steps, not used.
        schedule: Builds the schedule from the optimiser: any of ``torch.optim.lr_scheduler``, or of
            ``pytorch_optimizer`` that is a schedule of torch.
        interval: Whether it steps after every ``epoch`` or every optimiser ``step``.
        monitor: Name of the logged metric that a ``ReduceLROnPlateau`` looks at, by default
            ``val/loss``; others look at none.

    Raises:
        ValueError: If ``monitor`` has no effect, or a metric is to be looked at in every step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        num_steps: int,
        *,
        schedule: Callable[[Optimizer], LRScheduler],
        interval: Literal["epoch", "step"] = "epoch",
        monitor: str | None = None,
    ) -> None:
        self.schedule = schedule(optimizer)
        name = type(self.schedule).__name__
        looks = isinstance(self.schedule, ReduceLROnPlateau)
        if monitor is not None and not looks:
            raise ValueError(f"monitor={monitor} has no effect: {name} looks at no metric")
        if looks and interval == "step":
            raise ValueError(f"interval=step must be epoch: {name} looks at a metric of epochs")
        self.interval = interval
        self.monitor = (monitor or "val/loss") if looks else None
