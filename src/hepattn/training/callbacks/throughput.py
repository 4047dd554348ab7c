"""Events and tokens a second."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class Throughput(Callback):
    """Log how many events and real tokens all processes train on in a second.

    The clock counts loading and training, not validation. The first batch of an epoch, in which
    workers start, is left out.

    Args:
        every_n_steps: Number of batches in one measurement.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps} must be at least 1")
        self.every_n_steps = every_n_steps
        self._restart()

    def _restart(self) -> None:
        self._start: float | None = None
        self._num_batches = 0
        self._num_events = 0
        self._num_tokens: Tensor | int = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restart the clock."""
        self._restart()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restart the clock."""
        self._restart()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the batch, and log at the end of a measurement."""
        if self._start is None:
            self._start = time.perf_counter()
            return
        self._num_batches += 1
        self._num_events += batch.valid.shape[0]
        self._num_tokens = self._num_tokens + batch.valid.sum()  # stays on its device
        if self._num_batches == self.every_n_steps:
            num_tokens = int(self._num_tokens)  # waits for the device
            seconds = time.perf_counter() - self._start
            scale = trainer.world_size / seconds
            rates = {
                "throughput/events_per_second": self._num_events * scale,
                "throughput/tokens_per_second": num_tokens * scale,
            }
            pl_module.log_dict(rates, batch_size=batch.valid.shape[0])
            self._restart()
            self._start = time.perf_counter()
