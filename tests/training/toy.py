"""A tiny experiment: a script, a module and data as an experiment has them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset

from hepattn.nn.normalise import Feature
from hepattn.training.cli import TrainingCLI, run, run_script
from hepattn.training.module import BaseModule, ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable

LINKS = {"data.features": "model.features"}
CONFIG = Path(__file__).with_name("toy.yaml")


class ToyBatch(NamedTuple):
    hits: Tensor
    valid: Tensor
    label: Tensor
    event: Tensor


class ToyNet(nn.Module):
    def __init__(self, features: Sequence[Feature], dim: int = 4, dropout: float = 0.2) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(len(features), dim), nn.LayerNorm(dim), nn.Dropout(dropout), nn.Linear(dim, 1)
        )

    def forward(self, hits: Tensor) -> Tensor:
        return self.layers(hits).squeeze(-1)


class ToyModule(BaseModule):
    """Classify hits.

    Args:
        net: Builds the network from the features.
        features: Columns of the hits.
        optimizer: Builds the optimiser.
        schedule: Builds the schedule.
        compile: Whether to compile the network.
    """

    def __init__(
        self,
        net: Callable[[Sequence[Feature]], nn.Module],
        features: tuple[Feature, ...],
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(net(features), optimizer, schedule, compile)
        self.features = features

    def forward(self, batch: ToyBatch) -> Tensor:
        return self.net(batch.hits)

    def losses(self, batch: ToyBatch, outputs: Tensor) -> dict[str, Tensor]:
        bce = binary_cross_entropy_with_logits(outputs[batch.valid], batch.label[batch.valid])
        return {"bce": bce, "size": 1e-3 * outputs.square().mean()}

    def predictions(self, batch: ToyBatch, outputs: Tensor) -> dict[str, Tensor]:
        score = outputs.sigmoid()
        event = batch.event.unsqueeze(-1).expand_as(batch.valid)
        return {"event": event[batch.valid], "score": score[batch.valid]}


class ToyData(LightningDataModule):
    """Random hits.

    Args:
        features: Columns of the hits.
        num_events: Number of events.
        batch_size: Number of events in a batch.
        poison: Number of an event whose hits are not finite.
    """

    def __init__(
        self,
        features: tuple[Feature, ...],
        num_events: int = 8,
        batch_size: int = 2,
        poison: int | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.batch_size = batch_size
        generator = torch.Generator().manual_seed(1)
        hits = torch.randn(num_events, 5, len(features), generator=generator)
        self.events = [
            (x, torch.arange(5) < 3 + i % 3, (x[:, 0] > 0).float(), 100 + i)
            for i, x in enumerate(hits)
        ]
        if poison is not None:
            self.events[poison][0].fill_(torch.nan)

    def fingerprint(self) -> str:
        return "toy"

    def train_dataloader(self) -> DataLoader:
        return self._loader(shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(shuffle=False)

    def _loader(self, *, shuffle: bool) -> DataLoader:
        return DataLoader(
            Events(self.events), batch_size=self.batch_size, shuffle=shuffle, collate_fn=collate
        )

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader


class Events(Dataset):
    def __init__(self, events: list) -> None:
        self.events = events

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, i: int) -> tuple:
        return self.events[i]


def collate(events: list) -> ToyBatch:
    hits, valid, label, event = zip(*events, strict=True)
    return ToyBatch(torch.stack(hits), torch.stack(valid), torch.stack(label), torch.tensor(event))


class Interrupt:
    """A training step that fails at a given step."""

    def __init__(self, step: int) -> None:
        step_before = ToyModule.training_step

        def training_step(self: ToyModule, batch: ToyBatch, batch_idx: int) -> Tensor:
            if self.global_step == step:
                raise InterruptedError("stopped for the test")
            return step_before(self, batch, batch_idx)

        self.training_step = training_step


def toy(*args: str, config: Path | None = CONFIG) -> TrainingCLI:
    """Run the toy experiment in this process."""
    command, *options = args
    configs = ["--config", str(config)] if config else []
    return run(ToyModule, ToyData, config=CONFIG, links=LINKS, args=[command, *configs, *options])


def main() -> None:
    run(ToyModule, ToyData, config="toy.yaml", links=LINKS)


if __name__ == "__main__":
    run_script(__file__)
