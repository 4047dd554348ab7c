"""The size of the gradients."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer


class GradientNorm(Callback):
    """Log the Euclidean norm of all gradients before clipping as ``gradient/norm``."""

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure when the trainer is about to log."""
        if trainer.global_step % trainer.log_every_n_steps == 0:
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            pl_module.log("gradient/norm", torch.nn.utils.get_total_norm(gradients))
