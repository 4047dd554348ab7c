"""Schedules that are one formula of the step."""

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


class FlatThenDecay(Schedule):
    """A constant rate, then an exponential fall to a fraction of it: s f^((n - d) / (N - d)).

    The recipe of ParT and ParticleNet (arXiv:2202.03772), here with every step instead of every
    epoch.

    Args:
        optimizer: Optimiser whose rates follow the schedule.
        num_steps: Total number of optimiser steps N.
        max_lr: Constant rate s; by default the optimiser's own.
        decay_fraction: Fraction of the steps that is left when the rate begins to fall, at step d.
        end_factor: Fraction f of the rate at the last step.
        freeze_step: Step from which on the rate stands still.
        epoch_factor: Factor applied once at the end of every epoch.

    Raises:
        ValueError: If one of the fractions is not in (0, 1].
    """

    needs_num_steps = True

    def __init__(
        self,
        optimizer: Optimizer,
        num_steps: int,
        *,
        max_lr: float | None = None,
        decay_fraction: float = 0.3,
        end_factor: float = 0.01,
        freeze_step: int | None = None,
        epoch_factor: float = 1.0,
    ) -> None:
        for name, value in (("decay_fraction", decay_fraction), ("end_factor", end_factor)):
            if not 0 < value <= 1:
                raise ValueError(f"{name}={value} must be above 0 and at most 1")
        self.decay_steps = decay_fraction * num_steps
        self.end_factor = end_factor
        super().__init__(
            optimizer,
            num_steps,
            max_lr=max_lr,
            freeze_step=freeze_step,
            epoch_factor=epoch_factor,
        )

    def formula(self, n: int) -> float:
        """Rate of the n-th step."""
        progress = 1 - (self.num_steps - n) / self.decay_steps
        return self.peak * self.end_factor ** min(max(progress, 0.0), 1.0)
