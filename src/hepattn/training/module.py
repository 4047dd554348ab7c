"""The one base module: optimiser, schedule and named losses."""

# B events, N tokens

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hepattn.nn.moe import auxiliary_losses
from hepattn.training.optimizer import OptimizerCallable, parameter_groups, switch_mode
from hepattn.training.schedules import Other, Plateau, Schedule

ScheduleCallable = Callable[[Optimizer, int], LRScheduler]


class BaseModule(LightningModule):
    """Train a network on the sum of named losses, its own and those that its layers add.

    An experiment writes ``losses(batch, outputs)`` and, if it likes, ``forward(batch)``,
    ``update_metrics``, ``log_metrics`` and ``predictions``.

    Args:
        net: The network.
        optimizer: Builds the optimiser from the parameter groups. No default: the defaults of one
            class must not leak into another.
        schedule: Builds the learning rate schedule from the optimiser and the total number of
            optimiser steps; a constant rate by default.
        compile: Whether to compile the network with ``torch.compile``, or its keywords; in place,
            so that the keys of a checkpoint stay as they are.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/loss", "min")
    has_weights = False
    """Whether the network can be tested as it is built, without a checkpoint."""
    tokens_vary: ClassVar[bool] = True
    """Whether the second dimension of the network's inputs may have any size, not only theirs."""
    evaluation_folder: Path
    """Where a test or a prediction writes, new for each: ``eval/test``, ``eval/test_2``, …"""

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool | dict[str, Any] = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.make_optimizer = optimizer
        self.make_schedule = schedule
        if compile is not False:
            self.net.compile(**({} if compile is True else compile))

    def forward(self, batch: Any) -> Any:
        """Map a batch to predictions; by default what the network makes of it."""
        return self.net(batch)

    def losses(self, batch: Any, outputs: Any) -> dict[str, Tensor]:
        """Named scalar losses, already weighted, whose sum is minimised.

        Args:
            batch: The batch.
            outputs: What ``forward`` made of it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define losses(batch, outputs)")

    def update_metrics(self, stage: str, batch: Any, outputs: Any) -> None:
        """Add a batch to the metrics.

        Args:
            stage: ``train``, ``val`` or ``test``.
            batch: The batch.
            outputs: What ``forward`` made of it, without gradients.
        """

    def log_metrics(self, stage: str) -> None:
        """Log and reset the metrics at the end of an epoch.

        Args:
            stage: ``train``, ``val`` or ``test``.
        """

    def predictions(self, batch: Any, outputs: Any) -> dict[str, Tensor]:
        """Columns that a test or a prediction writes to disk, empty for none.

        Args:
            batch: The batch.
            outputs: What ``forward`` made of it.
        """
        return {}

    def network_inputs(self, batch: Any) -> tuple[Tensor, ...]:
        """What ``net`` is called with, for tools that look at the network alone.

        The first dimension of each is B and the second, where there is one, N.

        Args:
            batch: The batch.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define network_inputs(batch), the tensors that its "
            "network is called with, for this tool"
        )

    def exported_net(self) -> nn.Module:
        """What ``hepattn export`` writes; by default ``net``."""
        return self.net

    def export_inputs(self, batch: Any) -> tuple[Tensor, ...]:
        """What `exported_net` is called with; by default what ``net`` is called with.

        Args:
            batch: The batch.
        """
        return self.network_inputs(batch)

    def input_names(self) -> tuple[str, ...]:
        """Names of what `export_inputs` returns; by default the network's own arguments."""
        return tuple(inspect.signature(self.exported_net().forward).parameters)

    def num_events(self, batch: Any) -> int:
        """Number of events in a batch."""
        return batch.valid.shape[0]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss of a training batch, so that all batches of an optimiser step count alike."""
        return self._accumulation_factor(batch_idx) * self._step("train", batch)[0]

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss of a validation batch."""
        return self._step("val", batch)[0]

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Loss and predictions of a test batch."""
        loss, outputs = self._step("test", batch)
        return {"loss": loss, "predictions": self.predictions(batch, outputs)}

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Predictions of a batch."""
        return self.predictions(batch, self(batch))

    def _accumulation_factor(self, batch_idx: int) -> float:
        """What makes up for the division by ``accumulate_grad_batches`` in an epoch's last step.

        Lightning divides every loss by the number N of batches whose gradients are added up. What
        is left over at the end of an epoch is fewer, and would count less than it should.
        """
        trainer = self._trainer
        if trainer is None or trainer.strategy.handles_gradient_accumulation:
            return 1.0
        size, num_batches = trainer.accumulate_grad_batches, trainer.num_training_batches
        left = num_batches - batch_idx // size * size  # infinite for epochs of unknown length
        return size / min(size, left)

    def _step(self, stage: str, batch: Any) -> tuple[Tensor, Any]:
        outputs = self(batch)
        terms, added = self.losses(batch, outputs), auxiliary_losses(self.net)
        loss = sum_losses(terms, added)
        terms = {**terms, **added}
        self.log_dict(
            {f"{stage}/{name}": term.detach() for name, term in terms.items()}
            | {f"{stage}/loss": loss.detach()},
            batch_size=self.num_events(batch),
            sync_dist=stage != "train",
            on_step=stage == "train",
            on_epoch=stage != "train",
        )
        outputs = _detach(outputs)
        with torch.no_grad():
            self.update_metrics(stage, batch, outputs)
        return loss, outputs

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups of parameters for the optimiser: those that decay and those that do not.

        A group may have an ``lr_factor`` on the optimiser's own rate.
        """
        return parameter_groups(self)

    def configure_optimizers(self) -> Any:
        """Build the optimiser on decaying and plain parameters, and its schedule."""
        optimizer = self.make_optimizer(self.parameter_groups())
        for group in optimizer.param_groups:
            group["lr"] *= group.pop("lr_factor", 1.0)
        if self.make_schedule is None:
            return optimizer
        num_steps = self.trainer.estimated_stepping_batches
        schedule = self.make_schedule(optimizer, num_steps if num_steps > 0 else math.inf)
        if not isinstance(schedule, Schedule | Plateau | Other):  # its first option was the number
            raise ValueError(
                f"schedule={type(schedule).__name__} knows no number of steps: put it into "
                "hepattn.training.schedules.Other"
            )
        config = {
            "scheduler": schedule.schedule if isinstance(schedule, Other) else schedule,
            "interval": schedule.interval,
            "monitor": getattr(schedule, "monitor", None),
        }
        return {"optimizer": optimizer, "lr_scheduler": config}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients; the norm of those that FSDP shards is that of all shards."""
        sharded = self.trainer.strategy.model
        by_norm = gradient_clip_algorithm in (None, "norm")
        if gradient_clip_val and by_norm and isinstance(sharded, FullyShardedDataParallel):
            sharded.clip_grad_norm_(gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_test_start(self) -> None:
        """Choose the folder of this evaluation."""
        self._choose_evaluation_folder("test")

    def on_predict_start(self) -> None:
        """Choose the folder of this prediction."""
        self._choose_evaluation_folder("predict")

    def _choose_evaluation_folder(self, stage: str) -> None:
        free = free_folder(Path(self.trainer.default_root_dir) / "eval" / stage)
        self.evaluation_folder = self.trainer.strategy.broadcast(free)

    def on_train_start(self) -> None:
        """Put schedule-free optimisers into training mode."""
        switch_mode(self.trainer.optimizers, training=True)

    def on_train_epoch_start(self) -> None:
        """Put schedule-free optimisers into training mode."""
        switch_mode(self.trainer.optimizers, training=True)

    def on_train_epoch_end(self) -> None:
        """Log metrics, step per-epoch factors, and show the evaluated weights to checkpoints."""
        self.log_metrics("train")
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, Schedule):
                config.scheduler.end_epoch()
        switch_mode(self.trainer.optimizers, training=False)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self.log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self.log_metrics("test")

    def on_validation_model_eval(self) -> None:
        """Evaluate, with schedule-free optimisers on their averaged weights."""
        switch_mode(self.trainer.optimizers, training=False)
        super().on_validation_model_eval()

    def on_validation_model_train(self) -> None:
        """Return to training after a validation."""
        super().on_validation_model_train()
        switch_mode(self.trainer.optimizers, training=True)


def sum_losses(terms: dict[str, Tensor], added: dict[str, Tensor] | None = None) -> Tensor:
    """Add named losses after checking them.

    Args:
        terms: Name to scalar, of the experiment.
        added: Name to scalar, of the network's layers; none by default.

    Raises:
        ValueError: If there is no term, one is called ``loss`` or like one of the layers', or is
            not a floating scalar.
    """
    added = added or {}
    if not isinstance(terms, dict) or not terms:
        raise ValueError(f"losses() must return a dict with at least one named loss, got {terms!r}")
    for name, term in terms.items():
        if name == "loss":
            raise ValueError("a loss may not be called 'loss', the name of the sum; rename it")
        if name in added:
            raise ValueError(f"a loss may not be called {name!r}, which layers add; rename it")
        if not isinstance(term, Tensor) or term.ndim or not term.is_floating_point():
            got = f"shape {tuple(term.shape)}" if isinstance(term, Tensor) else type(term).__name__
            raise ValueError(
                f"loss {name!r} must be a floating scalar tensor, got {got}; reduce it"
            )
    return torch.stack([term.float() for term in (*terms.values(), *added.values())]).sum()


def free_folder(path: Path) -> Path:
    """Return the path, or, where it exists, the path with the next free number behind it."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}_{number}")
    return found


def _detach(outputs: Any) -> Any:
    return torch.utils._pytree.tree_map_only(Tensor, Tensor.detach, outputs)
