"""How much memory the training takes."""

from typing import Any

import psutil
from lightning.pytorch import Callback, LightningModule, Trainer


class ProcessMemory(Callback):
    """Log the resident memory of the process in MB as ``memory/process``, without its workers."""

    def __init__(self) -> None:
        self.process = psutil.Process()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measure when the trainer is about to log."""
        if trainer.global_step % trainer.log_every_n_steps == 0:
            pl_module.log("memory/process", self.process.memory_info().rss / 1e6)
