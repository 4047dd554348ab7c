"""One cycle: up, then down."""

import math
from typing import Literal

from torch.optim import Optimizer

from hepattn.training.schedules.base import Schedule


class OneCycle(Schedule):
    """Rise from an initial rate to the peak, then fall to an end rate.

    As in arXiv:1708.07120, with the phases of ``torch.optim.lr_scheduler.OneCycleLR``, momentum
    left alone: with t = n - 1, the rise ends at t = f N - 1 and the fall at t = N - 1.

    Args:
        optimizer: Optimiser whose rates follow the schedule.
        num_steps: Total number of optimiser steps N.
        max_lr: Peak rate; by default the optimiser's own.
        initial_lr: Rate of the first step; by default a 25th of the peak.
        end_lr: Rate of the last step; by default a 10000th of the initial one.
        warmup_fraction: Fraction f of the steps in which the rate rises.
        anneal: Shape of both phases.
        freeze_step: Step from which on the rate stands still.
        epoch_factor: Factor applied once at the end of every epoch.
    """

    needs_num_steps = True

    def __init__(
        self,
        optimizer: Optimizer,
        num_steps: int,
        *,
        max_lr: float | None = None,
        initial_lr: float | None = None,
        end_lr: float | None = None,
        warmup_fraction: float = 0.3,
        anneal: Literal["cosine", "linear"] = "cosine",
        freeze_step: int | None = None,
        epoch_factor: float = 1.0,
    ) -> None:
        if not 0 < warmup_fraction < 1:
            raise ValueError(f"warmup_fraction={warmup_fraction} must be between 0 and 1")
        peak = optimizer.defaults["lr"] if max_lr is None else max_lr
        self.initial = peak / 25 if initial_lr is None else initial_lr
        self.end = self.initial / 1e4 if end_lr is None else end_lr
        self.warmup_fraction = warmup_fraction
        self.anneal = anneal
        super().__init__(
            optimizer,
            num_steps,
            max_lr=max_lr,
            freeze_step=freeze_step,
            epoch_factor=epoch_factor,
        )

    def formula(self, n: int) -> float:
        """Rate of the n-th step."""
        top, last = self.warmup_fraction * self.num_steps - 1, self.num_steps - 1
        t = min(n - 1, last)
        if t <= top:
            return self._between(self.initial, self.peak, t / top if top > 0 else 1.0)
        return self._between(self.peak, self.end, (t - top) / (last - top))

    def _between(self, start: float, stop: float, progress: float) -> float:
        if self.anneal == "linear":
            return start + (stop - start) * progress
        return stop + (start - stop) * 0.5 * (1.0 + math.cos(math.pi * progress))
