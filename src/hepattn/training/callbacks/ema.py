"""Exponential moving average of the weights."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class EMA(WeightAveraging):
    """Validate, save and predict with averaged weights.

    The decay grows as ``min(decay, (1 + n) / (10 + n))`` with the number n of updates, so that the
    average follows the weights from the first step instead of remembering the initial ones.
    Buffers, such as fitted scales, are copied and not averaged. In a checkpoint ``state_dict``
    holds the average and ``current_model_state`` the weights in training.

    Args:
        decay: Largest share of the old average in an update.

    Raises:
        ValueError: If ``decay`` is not between 0 and 1.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} must be in [0, 1)")
        self.decay = decay
        super().__init__(device=None, use_buffers=False, avg_fn=self._average)

    def _average(self, average: Tensor, current: Tensor, num_updates: Tensor | int) -> Tensor:
        n = int(num_updates)
        decay = min(self.decay, (1 + n) / (10 + n))
        return average.lerp(current, 1 - decay)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the average what the module and callbacks before this one have changed since.

        It was made before the module's own ``setup``, and before weights to start from were loaded.
        """
        if trainer.ckpt_path is None:
            self._average_model.module.load_state_dict(pl_module.state_dict())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the average, made before the weights reached their device, to that device."""
        self._average_model.to(pl_module.device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the average what the validation has just chosen, such as a threshold."""
        if self._average_model is not None:
            averaged = self._average_model.module.buffers()
            for ours, chosen in zip(averaged, pl_module.buffers(), strict=True):
                ours.copy_(chosen)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the average in training; elsewhere the checkpoint's weights are the average."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
