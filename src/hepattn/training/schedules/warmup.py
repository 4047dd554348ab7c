"""Schedules with a linear warm-up."""

import math

from torch.optim import Optimizer

from hepattn.training.schedules.base import Schedule


class _WithWarmup(Schedule):
    """Adds a linear rise from the floor to the peak, reached at the last step of the warm-up.

    Args:
        optimizer: Optimiser whose rates follow the schedule.
        num_steps: Total number of optimiser steps N.
        max_lr: Peak rate; by default the optimiser's own.
        min_lr: Rate at the foot of the warm-up and floor.
        warmup_steps: Number of steps w of the warm-up.
        warmup_fraction: The same as a fraction of all steps.
        freeze_step: Step from which on the rate stands still.
        epoch_factor: Factor applied once at the end of every epoch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        num_steps: int,
        *,
        max_lr: float | None = None,
        min_lr: float = 0.0,
        warmup_steps: int = 0,
        warmup_fraction: float = 0.0,
        freeze_step: int | None = None,
        epoch_factor: float = 1.0,
    ) -> None:
        if warmup_steps and warmup_fraction:
            raise ValueError(
                f"give warmup_steps={warmup_steps} or warmup_fraction={warmup_fraction}, not both"
            )
        if warmup_steps < 0 or not 0 <= warmup_fraction < 1:
            raise ValueError(
                f"warmup_steps={warmup_steps} must not be negative and "
                f"warmup_fraction={warmup_fraction} must be in [0, 1)"
            )
        if warmup_fraction and not math.isfinite(num_steps):
            raise ValueError("warmup_fraction needs an end of training; give warmup_steps instead")
        self.warmup = round(warmup_fraction * num_steps) if warmup_fraction else warmup_steps
        super().__init__(
            optimizer,
            num_steps,
            max_lr=max_lr,
            min_lr=min_lr,
            freeze_step=freeze_step,
            epoch_factor=epoch_factor,
        )

    def formula(self, n: int) -> float:
        """Warm-up, then the share of the peak that ``decay`` leaves."""
        if n < self.warmup:
            share = n / self.warmup
        else:
            remaining = max(self.num_steps - self.warmup, 1)
            share = self.decay(min((n - self.warmup) / remaining, 1.0))
        return self.min_lr + (self.peak - self.min_lr) * share

    def decay(self, progress: float) -> float:
        """Share of the peak after the fraction ``progress`` of the steps after the warm-up."""
        raise NotImplementedError


class Constant(_WithWarmup):
    """Warm-up, then the peak rate."""

    def decay(self, progress: float) -> float:
        """Stay at the peak."""
        return 1.0


class Linear(_WithWarmup):
    """Warm-up, then a straight line to the floor: 1 - (n - w) / (N - w)."""

    needs_num_steps = True

    def decay(self, progress: float) -> float:
        """Fall along a straight line."""
        return 1.0 - progress


class Cosine(_WithWarmup):
    """Warm-up, then half a cosine to the floor: (1 + cos(pi (n - w) / (N - w))) / 2."""

    needs_num_steps = True

    def decay(self, progress: float) -> float:
        """Fall along half a cosine."""
        return 0.5 * (1.0 + math.cos(math.pi * progress))
