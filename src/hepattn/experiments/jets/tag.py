"""Jet tagging: which particle started this jet?

Run as ``python tag.py fit --config part.yaml`` or ``hepattn jets/tag fit``.
"""

# B jets, N particles, C classes

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from torch import Tensor, nn

from hepattn.data.error import DataError
from hepattn.data.jets import JetBatch
from hepattn.deploy.weaver import load_pretrained
from hepattn.experiments.jets import plots
from hepattn.experiments.jets.data import JetData
from hepattn.experiments.jets.feature_lists import FeatureList, feature_list
from hepattn.experiments.jets.report import print_tagging_figures, tagging_figures
from hepattn.metrics.tagging import TaggingMetrics
from hepattn.nn.attention import set_backend
from hepattn.nn.batch_norm import freeze_statistics
from hepattn.nn.event_threads import call_in_threads
from hepattn.nn.normalise import Feature
from hepattn.ops.attention import BackendName
from hepattn.training.cli import run, run_script
from hepattn.training.figures import plot_confusion, save_figure
from hepattn.training.module import BaseModule, ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable, parameter_groups
from hepattn.training.report import write_figures


@dataclass(frozen=True)
class Pretrained:
    """Weights to start from.

    Args:
        path: Checkpoint of a run of ours (``.ckpt``), or a weight file of weaver (``.pt``); null
            for none, with a warning.
        fold: Whether weaver 0.4.17 or an older one wrote the file of a Particle Transformer.
        new_head: Whether the last layer starts anew although the classes are as many.
        head_lr_factor: Factor on the learning rate of the last layer.
        freeze: Whether only the last layer is trained; the rest stays.
        freeze_statistics: Whether batch normalisations keep the statistics that they came with.
            Those of weaver's networks include padding, which ours leave out: trained on with other
            statistics, such a network begins far from what it has learned.

    Raises:
        ValueError: If the factor is not positive.
    """

    path: str | None = None
    fold: bool = False
    new_head: bool = True
    head_lr_factor: float = 50.0
    freeze: bool = False
    freeze_statistics: bool = True

    def __post_init__(self) -> None:
        if self.head_lr_factor <= 0:
            raise ValueError(f"head_lr_factor={self.head_lr_factor} must be positive")


class JetTagger(BaseModule):
    """A network that gives each jet a score for each class.

    Args:
        features: Columns of the input; the data decides them.
        num_classes: Number of classes C; the data decides it.
        net: Builds the network from the feature list and the number of classes.
        loss: Called with logits (B, C), labels and weights, both (B).
        optimizer: Builds the optimiser from the parameter groups.
        schedule: Builds the learning rate schedule; a constant rate by default.
        compile: Whether to compile the network.
        pretrained: Weights to start from; by default none.
        attention_backend: How every attention layer of the network computes; by default what the
            network itself says.
    """

    monitor = ("val/auc", "max")

    def __init__(
        self,
        features: FeatureList,
        num_classes: int,
        net: Callable[[Sequence[Feature], int], nn.Module],
        loss: nn.Module,
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool = False,
        pretrained: Pretrained | None = None,
        attention_backend: BackendName | None = None,
    ) -> None:
        super().__init__(net(feature_list(features), num_classes), optimizer, schedule, compile)
        self.loss = loss
        self.pretrained = pretrained
        if attention_backend is not None:
            set_backend(self.net, attention_backend)
        if pretrained is not None and pretrained.path is not None and pretrained.freeze:
            self.net.requires_grad_(False)
            self.net.head.requires_grad_(True)
        stages = ("val", "test")
        self.collected = nn.ModuleDict({stage: TaggingMetrics(num_classes) for stage in stages})

    @property
    def has_weights(self) -> bool:
        """Whether the network can be tested without training."""
        given = self.pretrained
        return given is not None and given.path is not None and not given.new_head

    def on_fit_start(self) -> None:
        """Start from the pretrained weights."""
        self._load_pretrained()

    def on_train_start(self) -> None:
        """Freeze what stays as it is."""
        super().on_train_start()
        self.train()

    def on_validation_start(self) -> None:
        """Take the pretrained weights, where this is no part of a training."""
        if not self.trainer.sanity_checking and self.trainer.state.fn != "fit":
            self._load_pretrained()

    def on_test_start(self) -> None:
        """Take the pretrained weights."""
        super().on_test_start()
        self._load_pretrained()

    def on_predict_start(self) -> None:
        """Take the pretrained weights."""
        super().on_predict_start()
        self._load_pretrained()

    def _load_pretrained(self) -> None:
        """Take the pretrained weights, unless those of a checkpoint are there by now."""
        given = self.pretrained
        if given is None or self.trainer.ckpt_path is not None:
            return
        if given.path is None:
            rank_zero_warn("no model.pretrained.path is given: all weights start anew")
            return
        loaded = load_pretrained(self.net, given.path, new_head=given.new_head, fold=given.fold)
        rank_zero_info(str(loaded))

    def train(self, mode: bool = True) -> "JetTagger":
        """Switch to training, which frozen parts do not follow."""
        super().train(mode)
        if self.pretrained is None or self.pretrained.path is None:
            return self
        if mode and self.pretrained.freeze:
            self.net.eval()
            self.net.head.train()
        if mode and self.pretrained.freeze_statistics:
            freeze_statistics(self.net)
        return self

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups of parameters; those of a pretrained network's head have their own rate."""
        if self.pretrained is None or self.pretrained.path is None:
            return super().parameter_groups()
        head = set(self.net.head.parameters())
        groups = []
        for group in parameter_groups(self):
            options = {name: value for name, value in group.items() if name != "params"}
            rest = [p for p in group["params"] if p not in head]
            ours = [p for p in group["params"] if p in head]
            groups += [{"params": rest, **options}] if rest else []
            factor = self.pretrained.head_lr_factor
            groups += [{"params": ours, "lr_factor": factor, **options}] if ours else []
        return groups

    def network_inputs(self, batch: JetBatch) -> tuple[Tensor, ...]:
        """Tensors that the network takes."""
        return batch.particles, batch.vectors, batch.valid

    def forward(self, batch: JetBatch) -> Tensor:
        """Score the jets: logits (B, C)."""
        return call_in_threads(self.net, self.network_inputs(batch), batch.valid)

    def losses(self, batch: JetBatch, outputs: Tensor) -> dict[str, Tensor]:
        """The one loss: is it the right class?"""
        if bool(((batch.label < 0) & (batch.weight > 0)).any()):
            raise DataError("training and tests need labels, and some jets have none")
        return {"class": self.loss(outputs, batch.label, batch.weight)}

    def update_metrics(self, stage: str, batch: JetBatch, outputs: Tensor) -> None:
        """Collect the scores of validation and test jets."""
        if stage in self.collected:
            self.collected[stage].update(outputs, batch.label)

    def log_metrics(self, stage: str) -> None:
        """Log accuracy and AUC; write and print the figures of a test."""
        if stage not in self.collected:
            return
        collected = self.collected[stage]
        with collected.sync_context():
            accuracy = float(collected.accuracy().value)
            values = {f"{stage}/accuracy": accuracy, f"{stage}/auc": collected.auc()}
            if stage == "test" and not self.trainer.fast_dev_run:
                self._write_evaluation(collected)
        collected.reset()
        self.log_dict(values, sync_dist=True, prog_bar=stage == "val")

    def predictions(self, batch: JetBatch, outputs: Tensor) -> dict[str, Tensor]:
        """One row a jet: its row in the source, its label and its scores."""
        score = outputs.float().softmax(-1)  # (B, C)
        classes = self.trainer.datamodule.classes
        columns = {f"score_{name}": score[:, i] for i, name in enumerate(classes)}
        return {"jet": batch.index, "label": batch.label, **columns}

    @rank_zero_only
    def _write_evaluation(self, collected: TaggingMetrics) -> None:
        folder: Path = self.evaluation_folder
        classes = self.trainer.datamodule.classes
        write_figures(folder, tagging_figures(collected, classes))
        save_figure(plots.plot_roc(collected, classes), folder / "roc.png")
        save_figure(plot_confusion(collected.confusion(), classes), folder / "confusion.png")
        print_tagging_figures(collected, classes)
        print(f"figures and plots written to {folder}")


CONFIG = "part.yaml"
LINKS = {"data.features": "model.features"}
DATA_LINKS = {"num_classes": "model.num_classes"}


def main(args: list[str] | None = None) -> None:
    """Run the tagger from the command line."""
    run(
        JetTagger,
        JetData,
        config=CONFIG,
        links=LINKS,
        data_links=DATA_LINKS,
        args=args,
    )


if __name__ == "__main__":
    run_script(__file__)
