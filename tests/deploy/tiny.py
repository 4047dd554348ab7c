"""A tiny tagger of random jets with a pair bias, which trains in a second."""

# B jets, N particles, H heads, C classes

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.normalise import Feature, Normalise
from hepattn.ops.attention import Full, make_plan
from hepattn.training.cli import run
from hepattn.training.module import BaseModule
from hepattn.training.optimizer import OptimizerCallable

FEATURES = (Feature("part_deta", scale=2.0), Feature("part_pt_log", shift=1.0, clip=(-5.0, 5.0)))


class TinyBatch(NamedTuple):
    particles: Tensor
    vectors: Tensor
    valid: Tensor
    label: Tensor


class TinyNet(nn.Module):
    def __init__(self, features: Sequence[Feature], num_classes: int, dim: int = 8) -> None:
        super().__init__()
        self.normalise = Normalise(features)
        self.embed = nn.Linear(len(features), dim)
        options = AttentionOptions(num_heads=2)
        self.layers = nn.ModuleList(Attention(dim, options) for _ in range(2))
        self.pair = nn.Parameter(torch.tensor([1.0, -1.0]))
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor, vectors: Tensor, valid: Tensor) -> Tensor:
        plan = make_plan(Full(), valid)
        tokens = self.embed(self.normalise(x, valid))
        energy = vectors[..., 0].masked_fill(~valid, 0.0)
        gap = (energy.unsqueeze(1) - energy.unsqueeze(2)).abs()  # (B, N, N)
        bias = self.pair.view(1, 2, 1, 1) * gap.unsqueeze(1)  # (B, H, N, N)
        for index, layer in enumerate(self.layers):
            tokens = tokens + layer(tokens, plan, bias=None if index else bias)[0]
        tokens = tokens.masked_fill(~valid.unsqueeze(-1), 0.0)
        return self.head(tokens.sum(1) / valid.sum(1, keepdim=True).clamp(min=1))


class TinyTagger(BaseModule):
    """Tag jets.

    Args:
        features: Columns of the input.
        num_classes: Number of classes.
        optimizer: Builds the optimiser.
        dim: Number of features in the network.
    """

    def __init__(
        self,
        features: tuple[Feature, ...],
        num_classes: int,
        optimizer: OptimizerCallable,
        dim: int = 8,
    ) -> None:
        super().__init__(TinyNet(features, num_classes, dim), optimizer)

    def network_inputs(self, batch: TinyBatch) -> tuple[Tensor, ...]:
        return batch.particles, batch.vectors, batch.valid

    def forward(self, batch: TinyBatch) -> Tensor:
        return self.net(*self.network_inputs(batch))

    def losses(self, batch: TinyBatch, outputs: Tensor) -> dict[str, Tensor]:
        return {"class": cross_entropy(outputs, batch.label)}


class TinyData(LightningDataModule):
    """Random jets.

    Args:
        features: Columns of the input.
        classes: Names of the classes.
        num_events: Number of jets.
        batch_size: Jets in a batch.
    """

    def __init__(
        self,
        features: tuple[Feature, ...],
        classes: tuple[str, ...] = ("QCD", "Hbb", "Hcc"),
        num_events: int = 6,
        batch_size: int = 3,
    ) -> None:
        super().__init__()
        self.features = features
        self.classes = classes
        self.num_events = num_events
        self.batch_size = batch_size

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(range(self.num_events), batch_size=self.batch_size, collate_fn=self._draw)

    val_dataloader = train_dataloader
    test_dataloader = train_dataloader

    def _draw(self, indices: list[int]) -> TinyBatch:
        generator = torch.Generator().manual_seed(indices[0])
        B, N = len(indices), 9
        valid = torch.arange(N) < torch.tensor([N - i % 4 for i in indices])[:, None]
        x = torch.randn(B, N, len(self.features), generator=generator)
        vectors = torch.rand(B, N, 4, generator=generator)
        return TinyBatch(x, vectors, valid, torch.tensor(indices) % self.num_classes)


def train(root: str, *options: str) -> None:
    """Train the tagger one epoch: the run is ``root/tiny``."""
    args = ["fit", "--run.root", root, "--run.name", "tiny", "--trainer.max_epochs", "1"]
    args += ["--data.features", json.dumps([asdict(feature) for feature in FEATURES])]
    args += ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.1"]
    args += ["--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1"]
    args += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    run(
        TinyTagger,
        TinyData,
        links={"data.features": "model.features"},
        data_links={"num_classes": "model.num_classes"},
        args=[*args, *options],
    )
