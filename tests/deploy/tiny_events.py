"""A tiny classifier of random events with two kinds of objects, overconfident by a factor."""

# B events, P slots of a kind, N slots of all kinds, O outputs

from collections.abc import Iterator

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from hepattn.data.events.batch import EventBatch
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import Feature, Normalise
from hepattn.nn.scaling import ScaledNetwork, class_logits
from hepattn.training.cli import TrainingCLI, run
from hepattn.training.module import BaseModule

SCHEMA = EventSchema(
    events=(Feature("met", transform="log1p"), Feature("ht")),
    objects={"jets": (Feature("pt"), Feature("eta"), Feature("btag")), "muons": (Feature("pt"),)},
    max_objects={"jets": 3, "muons": 2},
)
OVERCONFIDENCE = 3.0


class TinyNet(nn.Module):
    """Scores two numbers of an event, and of its objects, sharper than they allow."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.events = Normalise(SCHEMA.events)
        self.objects = nn.ModuleList(Normalise(features) for features in SCHEMA.objects.values())
        self.sharpness = nn.Parameter(torch.tensor(OVERCONFIDENCE))
        generator = torch.Generator().manual_seed(1)
        self.register_buffer("mix", torch.randn(6, num_outputs, generator=generator))

    def forward(self, events: Tensor, vectors: Tensor, valid: Tensor, *objects: Tensor) -> Tensor:
        parts = valid.split([x.shape[1] for x in objects], 1)
        every = torch.ones_like(valid[:, :1])
        columns = [self.events(events.unsqueeze(1), every).squeeze(1)]  # (B, 2)
        for normalise, x, real in zip(self.objects, objects, parts, strict=True):
            columns.append(normalise(x, real).sum(1))  # (B, F of the kind)
        return self.sharpness * torch.cat(columns, 1) @ self.mix  # (B, O)


class TinyClassifier(BaseModule):
    """Classify events.

    Args:
        num_classes: Number of classes.
        lr: Learning rate, by default one that changes nothing.
    """

    tokens_vary = False

    def __init__(self, num_classes: int, lr: float = 1e-6) -> None:
        num_outputs = 1 if num_classes == 2 else num_classes
        net = ScaledNetwork(TinyNet(num_outputs), num_outputs)
        super().__init__(net, lambda groups: torch.optim.SGD(groups, lr=lr))

    def network_inputs(self, batch: EventBatch) -> tuple[Tensor, ...]:
        return batch.events, batch.vectors, batch.valid, *batch.objects

    def input_names(self) -> tuple[str, ...]:
        return "events", "vectors", "valid", *SCHEMA.kinds

    def forward(self, batch: EventBatch) -> Tensor:
        return self.net(*self.network_inputs(batch))

    def losses(self, batch: EventBatch, outputs: Tensor) -> dict[str, Tensor]:
        return {"class": cross_entropy(class_logits(outputs), batch.label)}

    def predictions(self, batch: EventBatch, outputs: Tensor) -> dict[str, Tensor]:
        return {"event": batch.index, "score": class_logits(outputs).softmax(-1)[:, 1]}


class TinyEvents(LightningDataModule):
    """Random events whose labels the tiny network's logits, less sharp, draw.

    Args:
        num_classes: Number of classes.
        num_events: Number of events.
        batch_size: Events in a batch.
        labelled: Whether test events have labels.
    """

    schema = SCHEMA

    def __init__(
        self,
        num_classes: int = 2,
        num_events: int = 8,
        batch_size: int = 4,
        labelled: bool = True,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.classes = tuple(f"class_{i}" for i in range(num_classes))
        self.num_events = num_events
        self.batch_size = batch_size
        self.labelled = labelled

    def train_dataloader(self) -> DataLoader[EventBatch]:
        return self._loader(0, self.num_events)

    val_dataloader = train_dataloader
    predict_dataloader = train_dataloader

    def test_dataloader(self) -> DataLoader[EventBatch]:
        return self._loader(1, self.num_events, self.labelled)

    def calib_dataloader(self) -> DataLoader[EventBatch]:
        return self._loader(2, 100 * self.num_events)

    def _loader(self, seed: int, num: int, labelled: bool = True) -> DataLoader[EventBatch]:
        batches = list(self._draw(seed, num))
        if not labelled:
            batches = [batch._replace(label=batch.label * 0 - 1) for batch in batches]
        return DataLoader(batches, batch_size=None)

    def _draw(self, seed: int, num: int) -> Iterator[EventBatch]:
        generator = torch.Generator().manual_seed(seed)
        net = TinyNet(1 if self.num_classes == 2 else self.num_classes)
        for first in range(0, num, self.batch_size):
            B = min(self.batch_size, num - first)

            def draw(*shape: int, B: int = B) -> Tensor:
                return torch.randn(B, *shape, generator=generator)

            counts = [torch.randint(P + 1, (B, 1), generator=generator) for P in (3, 2)]
            valid = torch.cat([torch.arange(P) < n for P, n in zip((3, 2), counts, strict=True)], 1)
            inputs = (draw(2), draw(5, 4), valid, draw(3, 3), draw(2, 1))
            logit = class_logits(net(*inputs).detach() / OVERCONFIDENCE)
            label = logit.softmax(-1).multinomial(1, generator=generator).squeeze(1)
            index = first + torch.arange(B)
            weight = 0.5 + torch.rand(B, generator=generator)
            yield EventBatch(*inputs[:3], inputs[3:], label, weight, torch.zeros(B, 0), index)


def tiny_events(command: str, root: str, *options: str) -> TrainingCLI:
    """Run the classifier: the run is ``root/events``."""
    args = [command, "--run.root", root, "--run.name", "events", "--trainer.accelerator", "cpu"]
    args += ["--trainer.enable_progress_bar", "false"]
    if command == "fit":
        args += ["--trainer.max_epochs", "1", "--trainer.enable_model_summary", "false"]
        args += ["--trainer.log_every_n_steps", "1"]
    return run(
        TinyClassifier,
        TinyEvents,
        data_links={"num_classes": "model.num_classes"},
        args=[*args, *options],
    )
