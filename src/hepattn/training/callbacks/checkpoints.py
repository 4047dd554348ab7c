"""The checkpoints of every run."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Keep the state at the end of the last epoch as ``last.ckpt``.

    Lightning's ``save_last`` saves only when some other checkpoint is saved, so with a monitored
    metric it keeps the last best state, from which a resumed run would repeat epochs.

    Args:
        folder: Folder of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder,
            filename="last",
            save_on_train_epoch_end=True,  # between epochs, where a resume is exact
            enable_version_counter=False,
        )


class StepCheckpoint(ModelCheckpoint):
    """Keep the state after every so many optimiser steps, too, under the same name.

    Loaders that know how far they are (`EpochLoader`, `StreamingLoader`) make a resume from within
    an epoch exact.

    Args:
        folder: Folder of the checkpoints.
        every_n_steps: Number of steps from one state to the next.
    """

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        super().__init__(
            dirpath=folder,
            filename="last",
            every_n_train_steps=every_n_steps,
            enable_version_counter=False,
        )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save, unless a validation or the end of the epoch belongs to this batch."""
        if is_between_batches(trainer, batch_idx):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def is_between_batches(trainer: Trainer, batch_idx: int) -> bool:
    """Whether the next batch comes next, and neither a validation nor the end of the epoch.

    A run that goes on from a state that was saved before these would leave them out.

    Args:
        trainer: The trainer.
        batch_idx: Number of the batch of the epoch that has just been trained on.
    """
    if trainer.is_last_batch:
        return False
    num_batches = batch_idx + 1
    if trainer.check_val_every_n_epoch is None:  # counted over all epochs
        num_batches = trainer.fit_loop.total_batch_idx + 1
    every = trainer.val_check_batch
    return not every or every == float("inf") or num_batches % int(every) != 0


class BestCheckpoint(ModelCheckpoint):
    """Keep the best state by a metric as ``best.ckpt``, under that name whatever the metric.

    Args:
        folder: Folder of the checkpoints.
        monitor: Name of the logged metric.
        mode: Whether less (``min``) or more (``max``) is better.
    """

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=monitor,
            mode=mode,
            enable_version_counter=False,
        )
