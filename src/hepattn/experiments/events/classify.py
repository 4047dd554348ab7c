"""Event classification: what happened in this collision?

Run as ``python classify.py fit --config mlp.yaml`` or ``hepattn events/classify fit``.
"""

# B events, C classes, O outputs, A auxiliary columns

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import CatMetric
from torchmetrics.utilities import dim_zero_cat

from hepattn.data.events import EventBatch
from hepattn.deploy.calibrate import draw_reliability
from hepattn.experiments.events import plots
from hepattn.experiments.events.data import EventData
from hepattn.experiments.events.module import DATA_LINKS, EventModule, EventNetwork, KernelName
from hepattn.experiments.events.report import classification_figures, print_figures
from hepattn.losses.distance_correlation import Decorrelation
from hepattn.losses.event import EventLoss
from hepattn.metrics.event_classification import EventMetrics
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.scaling import ScaledNetwork, class_logits
from hepattn.ops.attention import BackendName
from hepattn.training.cli import run, run_script
from hepattn.training.figures import plot_confusion, save_figure
from hepattn.training.module import ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable
from hepattn.training.report import write_figures


class EventClassifier(EventModule):
    """A network that gives each event a score for each class, or one score for two classes.

    Args:
        schema: Columns of events and objects; the data decides them.
        classes: Names of the classes; of two, the second is what the score is for. The data decides
            them.
        auxiliary: Names of the columns that the network does not see; the data decides them.
        net: Builds the network from the schema and the number of outputs.
        loss: Called with logits (B, O), labels and weights, both (B).
        optimizer: Builds the optimiser from the parameter groups.
        schedule: Builds the learning rate schedule; a constant rate by default.
        compile: Whether to compile the network, or the keywords of ``torch.compile``.
        attention_backend: How every attention layer of the network computes.
        sdpa_kernels: Kernels among which torch's attention may choose; all by default.
        decorrelation: Penalty for a score that depends on auxiliary columns, such as a mass, among
            the events of the background; none by default.
        signal: Classes that are the signal, against the other ones, in curves, in significances and
            for the decorrelation; by default the last one.

    Raises:
        ValueError: If a class or a column is not there.
    """

    monitor = ("val/auc", "max")

    def __init__(
        self,
        schema: EventSchema,
        classes: tuple[str, ...],
        auxiliary: tuple[str, ...],
        net: EventNetwork,
        loss: EventLoss,
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool | dict[str, Any] = False,
        attention_backend: BackendName | None = None,
        sdpa_kernels: list[KernelName] | None = None,
        decorrelation: Decorrelation | None = None,
        signal: tuple[str, ...] | None = None,
    ) -> None:
        if len(classes) < 2:
            raise ValueError(f"classification needs two classes at least, not {list(classes)}")
        signal = tuple(signal or classes[-1:])
        if not set(signal) < set(classes):
            raise ValueError(f"signal={list(signal)} must be some of the classes {list(classes)}")
        num_outputs = 1 if len(classes) == 2 else len(classes)
        super().__init__(
            schema,
            num_outputs,
            lambda *given: ScaledNetwork(net(*given), num_outputs),
            loss,
            optimizer,
            schedule,
            compile,
            attention_backend,
            sdpa_kernels,
        )
        self.classes = classes
        self.signal = [place for place, name in enumerate(classes) if name in signal]
        self.background = [place for place, name in enumerate(classes) if name not in signal]
        self.auxiliary = auxiliary
        refuse_wrong_loss(loss, num_outputs)
        self.decorrelation = decorrelation
        wanted = [] if decorrelation is None else decorrelation.variables
        if missing := [name for name in wanted if name not in auxiliary]:
            raise ValueError(
                f"model.decorrelation.variables names {missing}, which data.auxiliary="
                f"{list(auxiliary)} lacks"
            )
        self.decorrelated = [auxiliary.index(name) for name in wanted]
        stages = ("val", "test")
        self.collected = nn.ModuleDict({stage: EventMetrics(len(classes)) for stage in stages})
        self.seen = CatMetric(nan_strategy="disable")  # auxiliary columns of the test (J, A)

    def losses(self, batch: EventBatch, outputs: Tensor) -> dict[str, Tensor]:
        """Is it the right class, and does the score know what it should not?"""
        losses = {"class": self.loss(outputs, batch.label, batch.weight)}
        if self.decorrelation is not None:
            losses["decorrelation"] = self.decorrelation(
                outputs,
                batch.auxiliary[:, self.decorrelated],
                batch.label,
                batch.weight,
                torch.isin(batch.label, batch.label.new_tensor(self.background)),
            )
        return losses

    def update_metrics(self, stage: str, batch: EventBatch, outputs: Tensor) -> None:
        """Collect the scores of validation and test events."""
        super().update_metrics(stage, batch, outputs)
        if stage in self.collected:
            self.collected[stage].update(outputs, batch.label, batch.weight)
        if stage == "test" and self.auxiliary:
            self.seen.update(batch.auxiliary)

    def log_metrics(self, stage: str) -> None:
        """Log accuracy and AUC; write and print the figures of a test."""
        if stage not in self.collected:
            return
        collected = self.collected[stage]
        with collected.sync_context(), self.seen.sync_context():
            values = {"accuracy": collected.accuracy(), "auc": collected.auc()}
            if stage == "test" and not self.trainer.fast_dev_run:
                self._write_evaluation(collected)
        collected.reset()
        self.seen.reset()
        named = {f"{stage}/{name}": value for name, value in values.items()}
        self.log_dict(named, sync_dist=True, prog_bar=stage == "val")

    def predictions(self, batch: EventBatch, outputs: Tensor) -> dict[str, Tensor]:
        """One row an event: its row in the source, label, weight and scores."""
        score = class_logits(outputs.float()).softmax(-1)  # (B, C)
        columns = {f"score_{name}": score[:, i] for i, name in enumerate(self.classes)}
        auxiliary = dict(zip(self.auxiliary, batch.auxiliary.unbind(1), strict=True))
        return {
            "event": batch.index,
            "label": batch.label,
            "weight": batch.weight,
            **columns,
            **auxiliary,
        }

    @rank_zero_only
    def _write_evaluation(self, collected: EventMetrics) -> None:
        folder: Path = self.evaluation_folder
        groups = (self.signal, self.background)
        auxiliary = self._auxiliary()
        # Weights are expected numbers in all events, of which the test has its share.
        scale = 1 / max(self.trainer.datamodule.split().test, 1e-9)
        scan = collected.significance(*groups, scale=scale)
        figures = classification_figures(collected, self.classes, *groups, auxiliary, scan)
        write_figures(folder, figures)
        drawn = {
            "roc": plots.plot_roc(collected, {"signal": groups}),
            "precision": plots.plot_precision(collected, *groups),
            "scores": plots.plot_scores(collected, self.classes, *groups),
            "significance": plots.plot_significance(scan),
            "confusion": plot_confusion(collected.confusion(), self.classes),
            "reliability": draw_reliability({"test": {"network": collected.reliability()}}),
        }
        drawn |= self._draw_one_against_rest(collected)
        for name, column in auxiliary.items():
            drawn[f"sculpting_{name}"] = plots.plot_sculpting(collected, column, name, *groups)
        for name, figure in drawn.items():
            save_figure(figure, folder / f"{name}.png")
        print_figures(f"{figures['num_events']} events of {len(self.classes)} classes", figures)
        print(f"figures and plots written to {folder}")

    def _draw_one_against_rest(self, collected: EventMetrics) -> dict[str, Figure]:
        """Draw curves and scores of each of several classes against all others, by name."""
        groups = {self.classes[own]: pair for own, pair in collected.one_against_rest().items()}
        drawn = {
            f"scores_{name}": plots.plot_scores(collected, self.classes, *pair, name)
            for name, pair in groups.items()
        }
        if groups:
            drawn["roc_one_against_rest"] = plots.plot_roc(collected, groups)
        return drawn

    def _auxiliary(self) -> dict[str, Tensor]:
        """The auxiliary columns of the test events, each (J)."""
        columns = dim_zero_cat(self.seen.value) if self.auxiliary else None
        return {name: columns[:, place] for place, name in enumerate(self.auxiliary)}


def refuse_wrong_loss(loss: EventLoss, num_outputs: int) -> None:
    """Refuse a loss that does not fit the number of outputs, before any data is read.

    Raises:
        ValueError: If it does not.
    """
    label, weight = torch.zeros(1, dtype=torch.long), torch.ones(1)
    loss(torch.zeros(1, num_outputs), label, weight)


CONFIG = "mlp.yaml"


def main(args: list[str] | None = None) -> None:
    """Run the classifier from the command line."""
    run(EventClassifier, EventData, config=CONFIG, data_links=DATA_LINKS, args=args)


if __name__ == "__main__":
    run_script(__file__)
