"""What a training saw and what it ended with."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Recorder(Callback):
    """Save the rows of every batch that count, the final weights and the metrics of each process.

    Args:
        file: File to write, without suffix.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.rows: dict[str, list[list[int]]] = {"train": [], "val": []}
        self.num_rows = 0

    def _see(self, stage: str, batch: Any) -> None:
        if hasattr(batch, "weight"):
            name, counts = batch.index, batch.weight > 0
        else:  # hits
            name, counts = batch.event, batch.valid.any(1)
        self.num_rows += len(name)
        self.rows[stage].append(name[counts].tolist())

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._see("train", batch)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any
    ) -> None:
        if not trainer.sanity_checking:
            self._see("val", batch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        record = {
            "rows": self.rows,
            "num_rows": self.num_rows,
            "weights": {
                n: x for n, x in pl_module.state_dict().items() if isinstance(x, torch.Tensor)
            },
            "metrics": {name: float(x) for name, x in trainer.callback_metrics.items()},
        }
        Path(self.file).parent.mkdir(parents=True, exist_ok=True)
        torch.save(record, f"{self.file}_{trainer.global_rank}.pt")
