"""Go back into the queue of SLURM when the time of a job is nearly over."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from hepattn.training.callbacks.checkpoints import is_between_batches
from hepattn.training.run_directory import RunDirectory


class Requeue(Checkpoint):
    """Save the state and queue the job again after SIGUSR1.

    The optimiser step that the signal finds is finished first: Lightning's own requeueing saves in
    the middle of it, and the continued run ends elsewhere than one that was never stopped. So are a
    validation and the end of an epoch that belong to the step.

    As a `Checkpoint` it comes behind all other callbacks, such as an average of the weights. Only
    the processes that train react, not those that read data for them.

    Args:
        every_n_steps: Where several processes train, batches until they agree again on whether one
            of them got the signal; each agreement waits for the device.

    Raises:
        ValueError: If ``every_n_steps`` is not positive.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps} must be at least 1")
        self.every_n_steps = every_n_steps
        self._has_signal = False
        self._is_queued = False
        self._step = 0
        self._before: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to the signal."""
        self._before = signal.signal(signal.SIGUSR1, self._notice)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the signal to whoever had it."""
        if self._before is not None:
            signal.signal(signal.SIGUSR1, self._before)
            self._before = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the step that a continued run begins with."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save and queue again, where a step has just ended and a signal has come.

        Not before a validation or the end of an epoch, which a continued run would leave out.
        """
        if trainer.global_step == self._step:  # gradients are added up, and are in no checkpoint
            return
        if not is_between_batches(trainer, batch_idx):
            return
        self._step = trainer.global_step
        if self._is_queued or trainer.fast_dev_run:
            return
        has_signal = self._has_signal
        if trainer.world_size > 1:
            if self._step % self.every_n_steps:
                return
            has_signal = trainer.strategy.reduce_boolean_decision(has_signal, all=False)
        if has_signal:
            root = Path(trainer.default_root_dir)
            trainer.save_checkpoint(RunDirectory(root.parent, root.name).checkpoints / "last.ckpt")
            rank_zero_info(f"saved after step {self._step}")
            self._is_queued = True
            queue_again()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Queue again after the end of an epoch, at which its state was saved."""
        has_signal = self._has_signal
        if trainer.world_size > 1:
            has_signal = trainer.strategy.reduce_boolean_decision(has_signal, all=False)
        if has_signal and not self._is_queued and not trainer.fast_dev_run:
            self._is_queued = True
            queue_again()

    def _notice(self, *_: Any) -> None:
        self._has_signal = True


@rank_zero_only
def queue_again() -> None:
    """Tell SLURM to queue the job of this process again, which ends it."""
    job, array = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if job is None:
        rank_zero_warn("SIGUSR1 outside of SLURM: the state is saved, and training goes on")
        return
    try:
        subprocess.check_call(["scontrol", "requeue", job])
    except (OSError, subprocess.CalledProcessError) as error:
        rank_zero_warn(f"job {job} could not be queued again ({error}); submit it once more")
