"""Schedules that are one formula of the step, without an end."""

import math

from torch.optim import Optimizer

from hepattn.training.schedules.base import Schedule


class Attention(Schedule):
    """The schedule of arXiv:1706.03762: s d^(-1/2) min(n^(-1/2), n w^(-3/2)).

    Args:
        optimizer: Optimiser whose rates follow the schedule.
        num_steps: Total number of optimiser steps, not used.
        dim: Width d of the network.
        warmup_steps: Number of steps w in which the rate rises.
        scale: Factor s.
        min_lr: Floor of the rate.
        freeze_step: Step from which on the rate stands still.
        epoch_factor: Factor applied once at the end of every epoch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        num_steps: int,
        *,
        dim: int,
        warmup_steps: int,
        scale: float = 1.0,
        min_lr: float = 0.0,
        freeze_step: int | None = None,
        epoch_factor: float = 1.0,
    ) -> None:
        if dim < 1 or warmup_steps < 1:
            raise ValueError(f"dim={dim} and warmup_steps={warmup_steps} must be positive")
        self.dim = dim
        self.warmup = warmup_steps
        self.scale = scale
        super().__init__(
            optimizer,
            num_steps,
            max_lr=scale * (dim * warmup_steps) ** -0.5,
            min_lr=min_lr,
            freeze_step=freeze_step,
            epoch_factor=epoch_factor,
        )

    def formula(self, n: int) -> float:
        """Rate of the n-th step."""
        return self.scale * self.dim**-0.5 * min(n**-0.5, n * self.warmup**-1.5)


class SqrtExp(Schedule):
    """Square root rise and exponential fall, a sqrt(n c) exp(-n c), with its peak at n = 1/(2c).

    Args:
        optimizer: Optimiser whose rates follow the schedule.
        num_steps: Total number of optimiser steps, not used.
        amplitude: Factor a.
        rate: Inverse number of steps c.
        min_lr: Floor of the rate.
        freeze_step: Step from which on the rate stands still.
        epoch_factor: Factor applied once at the end of every epoch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        num_steps: int,
        *,
        amplitude: float,
        rate: float,
        min_lr: float = 0.0,
        freeze_step: int | None = None,
        epoch_factor: float = 1.0,
    ) -> None:
        if amplitude <= 0 or rate <= 0:
            raise ValueError(f"amplitude={amplitude} and rate={rate} must be positive")
        self.amplitude = amplitude
        self.rate = rate
        super().__init__(
            optimizer,
            num_steps,
            max_lr=amplitude * math.sqrt(0.5 / math.e),
            min_lr=min_lr,
            freeze_step=freeze_step,
            epoch_factor=epoch_factor,
        )

    def formula(self, n: int) -> float:
        """Rate of the n-th step."""
        return self.amplitude * math.sqrt(n * self.rate) * math.exp(-n * self.rate)
