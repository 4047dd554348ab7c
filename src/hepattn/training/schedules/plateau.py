"""Lower the rate when a metric stalls."""

from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau


class Plateau(ReduceLROnPlateau):
    """Lower the rate when a metric stops improving, checked after every epoch.

    Args:
        optimizer: Optimiser whose rates follow the schedule.
        num_steps: Total number of optimiser steps, not used.
        monitor: Name of the logged metric.
        mode: Whether less or more is better.
        factor: Factor on the rate.
        patience: Number of epochs without improvement that are tolerated.
        threshold: Relative change that counts as an improvement.
        cooldown: Number of epochs to wait after a reduction.
        min_lr: Floor of the rate.
    """

    interval = "epoch"

    def __init__(
        self,
        optimizer: Optimizer,
        num_steps: int,
        *,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        self.monitor = monitor
        super().__init__(
            optimizer,
            mode=mode,
            factor=factor,
            patience=patience,
            threshold=threshold,
            cooldown=cooldown,
            min_lr=min_lr,
        )

    def state_dict(self) -> dict[str, Any]:
        """How far the schedule is; its options stay with the config."""
        kept = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")
        return {key: getattr(self, key) for key in kept}
