"""Stop at the first loss or gradient that is not finite, and say where it came from."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is not finite."""


class NanGuard(Callback):
    """Stop before a loss or gradient that is not finite reaches the weights.

    The message names the batch and its events, and the batch is saved as ``nan_batch.pt`` in the
    run directory. In fp16 an overflow of the gradients is part of the method (the scaler skips
    the step), so only the loss is checked. A check waits for the device.

    Args:
        every_n_steps: Number of batches from one check to the next.
    """

    def __init__(self, every_n_steps: int = 1) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps} must be at least 1")
        self.every_n_steps = every_n_steps
        self._batch: Any = None
        self._batch_idx = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch."""
        self._batch, self._batch_idx = batch, batch_idx

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Check the loss."""
        loss = loss.detach()
        if self._batch_idx % self.every_n_steps == 0 and not bool(loss.isfinite().all()):
            self._stop(trainer, f"the loss is {loss.item()}")

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Check the gradients."""
        if self._batch_idx % self.every_n_steps or getattr(
            trainer.precision_plugin, "scaler", None
        ):
            return
        named = [(n, p.grad) for n, p in pl_module.named_parameters() if p.grad is not None]
        if named and not bool(torch.nn.utils.get_total_norm([g for _, g in named]).isfinite()):
            bad = [name for name, gradient in named if not bool(gradient.isfinite().all())]
            if bad:  # else the norm of finite gradients overflowed
                self._stop(trainer, f"the gradient of {', '.join(bad[:5])} is not finite")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the batch."""
        self._batch = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save the batch in which something else stopped at numbers that are not finite."""
        is_other = isinstance(exception, FloatingPointError)
        is_other = is_other and not isinstance(exception, NonFiniteError)
        if is_other and self._batch is not None:
            self._stop(trainer, str(exception))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the batch."""
        self._batch = None

    def _stop(self, trainer: Trainer, reason: str) -> None:
        batch = self._batch
        numbers = (getattr(batch, name, None) for name in ("event", "index"))
        # a tuple without such a field still has a method of the name index
        events = next((each for each in numbers if isinstance(each, Tensor)), None)
        named = "" if events is None else f", events {events.tolist()}"
        message = (
            f"{reason} at step {trainer.global_step}, epoch {trainer.current_epoch}, "
            f"batch {self._batch_idx}{named}"
        )
        if not trainer.fast_dev_run:
            rank = f"_rank{trainer.global_rank}" if trainer.global_rank else ""
            file = Path(trainer.default_root_dir) / f"nan_batch{rank}.pt"
            file.parent.mkdir(parents=True, exist_ok=True)
            fields = batch._asdict() if hasattr(batch, "_asdict") else {"batch": batch}
            torch.save(fields, file)
            message += f"; the batch is saved in {file}"
        raise NonFiniteError(message)
