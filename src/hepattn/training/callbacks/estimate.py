"""What a training will take, from its first steps."""

import json
import resource
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer


class Estimate(Callback):
    """Time some steps, add up what they keep in memory, and stop the training.

    The first steps, in which memory is allocated, do not count. Of the memory:

    - weights, gradients and the state of the optimiser are sums over tensors;
    - activations are what the graph of one training step keeps for the backward pass, without
      the weights, each memory once; it grows with the batch;
    - the peak is that of the process, data and libraries included, or on a GPU that of its memory.

    Args:
        file: JSON file to write.
        num_steps: Number of steps to time, after ``warmup`` others.
        warmup: Number of steps that do not count.

    Raises:
        ValueError: If there is no step to time.
    """

    def __init__(self, file: str, num_steps: int = 10, warmup: int = 3) -> None:
        if num_steps < 1 or warmup < 0:
            raise ValueError(
                f"num_steps={num_steps} must be positive, warmup={warmup} not negative"
            )
        self.file = Path(file)
        self.num_steps = num_steps
        self.warmup = warmup
        self.seconds: list[float] = []
        self.validation: list[float] = []
        self.activations = self.gradients = self.state = 0
        self._began = 0.0
        self._count = 0
        self._is_first = True  # of an epoch: before it workers start, and a validation may end
        self._kept: dict[int, int] = {}
        self._hooks: AbstractContextManager[Any] | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the first batch, before which workers start."""
        self._is_first = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the batch after a validation."""
        self._is_first = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Look at what the last step before the timed ones keeps."""
        if self._count == self.warmup:
            weights = {x.untyped_storage().data_ptr() for x in pl_module.parameters()}
            self._hooks = torch.autograd.graph.saved_tensors_hooks(
                lambda x: self._keep(x, weights), lambda x: x
            )
            self._hooks.__enter__()

    def _keep(self, x: Tensor, weights: set[int]) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            self._kept[storage.data_ptr()] = storage.nbytes()
        return x

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Add up what the graph keeps."""
        if self._hooks is not None:
            self._hooks.__exit__(None, None, None)
            self._hooks = None
            self.activations = sum(self._kept.values())
            self._kept = {}

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Add up the gradients."""
        self.gradients = num_bytes(p.grad for p in pl_module.parameters() if p.grad is not None)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the time from the end of one batch to that of the next, with its loading."""
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._count > self.warmup and not self._is_first:
            self.seconds.append(now - self._began)
        self._began, self._count, self._is_first = now, self._count + 1, False
        if len(self.seconds) == self.num_steps:
            trainer.should_stop = True

    def on_validation_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Take the time of a validation batch."""
        self.validation.append(time.perf_counter() - self._began)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was found."""
        states = (s for opt in trainer.optimizers for s in opt.state.values())
        tensors = [x for s in states for x in _tensors(s)]
        data = trainer.datamodule
        num_batches = len(trainer.train_dataloader)
        on_gpu = trainer.strategy.root_device.type == "cuda"
        kilo = 1 if sys.platform == "darwin" else 1024  # unit of the system's peak
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo
        found = {
            "parameters": sum(p.numel() for p in pl_module.parameters()),
            "weights_bytes": num_bytes(pl_module.parameters()),
            "gradients_bytes": self.gradients,
            "optimizer_bytes": num_bytes(tensors),
            "activations_bytes": self.activations,
            "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else peak,
            "device": str(trainer.strategy.root_device),
            "batch_size": getattr(data, "batch_size", None),
            "batches_per_epoch": num_batches,
            "validation_batches": len(data.val_dataloader()) if self.validation else 0,
            "epochs": trainer.max_epochs,
            "max_steps": trainer.max_steps,
            "seconds_per_step": self.seconds,
            "seconds_per_validation_batch": self.validation,
        }
        self.file.write_text(json.dumps(found, indent=2) + "\n")


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Memory of tensors."""
    return sum(x.numel() * x.element_size() for x in tensors)


def _tensors(value: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
