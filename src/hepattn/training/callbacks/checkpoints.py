"""The checkpoints of every run."""

from pathlib import Path

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
