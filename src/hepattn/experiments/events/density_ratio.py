"""Density ratios: how much likelier is this event in one sample than in another?

Run as ``python density_ratio.py fit --config density_ratio.yaml`` or
``hepattn events/density_ratio fit``.
"""

# B events

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from hepattn.data.events import EventBatch
from hepattn.experiments.events import plots
from hepattn.experiments.events.data import EventData
from hepattn.experiments.events.module import DATA_LINKS, EventModule, EventNetwork, KernelName
from hepattn.experiments.events.report import density_ratio_figures, print_figures
from hepattn.losses.density_ratio import DensityRatioLoss
from hepattn.metrics.density_ratio import DensityRatioMetrics
from hepattn.nn.event_schema import EventSchema
from hepattn.ops.attention import BackendName
from hepattn.training.cli import run, run_script
from hepattn.training.configs import ConfigError
from hepattn.training.figures import save_figure
from hepattn.training.load import load_run
from hepattn.training.module import ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable
from hepattn.training.report import write_figures


@dataclass(frozen=True)
class Subtraction:
    """Runs that say which share of the data is not what is wanted, such as prompt leptons.

    Each was trained with data as numerator and the simulation of the unwanted part as denominator:
    its ratio r is data over simulation, and an event of the data weighs 1 - 1 / r, or nothing where
    r is below one.

    Args:
        numerator: Run for the numerator of this ratio, such as the tight region.
        denominator: Run for its denominator, such as the loose region.
    """

    numerator: str
    denominator: str


class DensityRatio(EventModule):
    """A network whose output is a function of the density ratio of two classes.

    Args:
        schema: Columns of events and objects; the data decides them.
        classes: Names of the two classes, the denominator first; the data decides them.
        auxiliary: Names of the columns that the network does not see; the data decides them.
        net: Builds the network from the schema and the number of outputs, one.
        loss: A density-ratio loss, which knows the ratio that an output stands for.
        optimizer: Builds the optimiser from the parameter groups.
        schedule: Builds the learning rate schedule; a constant rate by default.
        compile: Whether to compile the network, or the keywords of ``torch.compile``.
        attention_backend: How every attention layer of the network computes.
        sdpa_kernels: Kernels among which torch's attention may choose; all by default.
        subtraction: Runs by whose ratios events are weighed down; none by default.
        truth: Auxiliary column with the true logarithm of the ratio, where a simulation knows it.

    Raises:
        ValueError: If there are not two classes, or the truth is no auxiliary column.
    """

    def __init__(
        self,
        schema: EventSchema,
        classes: tuple[str, ...],
        auxiliary: tuple[str, ...],
        net: EventNetwork,
        loss: DensityRatioLoss,
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool | dict[str, Any] = False,
        attention_backend: BackendName | None = None,
        sdpa_kernels: list[KernelName] | None = None,
        subtraction: Subtraction | None = None,
        truth: str | None = None,
    ) -> None:
        if len(classes) != 2:
            raise ValueError(f"a density ratio is of two classes, not of {list(classes)}")
        if truth is not None and truth not in auxiliary:
            raise ValueError(f"truth={truth} must be one of data.auxiliary={list(auxiliary)}")
        super().__init__(
            schema, 1, net, loss, optimizer, schedule, compile, attention_backend, sdpa_kernels
        )
        self.truth = None if truth is None else auxiliary.index(truth)
        self.variables = tuple(name for name in auxiliary if name != truth)
        self.shown = [auxiliary.index(name) for name in self.variables]
        self.subtraction = subtraction
        self.normalise = loss.numerator_share is not None  # then shapes are what is learned
        self.references: tuple[DensityRatio, DensityRatio] | None = None
        stages = ("val", "test")
        self.collected = nn.ModuleDict(
            {stage: DensityRatioMetrics(len(self.variables)) for stage in stages}
        )

    def setup(self, stage: str) -> None:
        """Learn the statistics of the inputs and open the runs of the subtraction."""
        super().setup(stage)
        if self.subtraction is not None and self.references is None:
            # Denominator and numerator, as the labels are; a tuple is no part of the checkpoint.
            runs = (self.subtraction.denominator, self.subtraction.numerator)
            self.references = tuple(self._open(run, label) for label, run in enumerate(runs))

    def _open(self, run: str, label: int) -> "DensityRatio":
        """Open the run whose ratio weighs events of a label down, and see that it can."""
        loaded = load_run(run)
        module, weighting = loaded.module, getattr(loaded.data, "weighting", None)
        if not isinstance(module, DensityRatio):
            raise ConfigError(f"model.subtraction: {run} is no run of a density ratio")
        if module.schema != self.schema or module.schema.kinds != self.schema.kinds:
            raise ConfigError(
                f"model.subtraction: {run} was trained on other columns; use the same data.inputs"
            )
        theirs = loaded.data.processes[1]
        ours = self.trainer.datamodule.processes[label]
        if theirs != ours:
            raise ConfigError(
                f"model.subtraction: {run} has the data {theirs} as numerator, and must have those "
                f"that it weighs down, {ours}; are the two runs swapped?"
            )
        rescaled = weighting.class_weights or weighting.resampling or module.loss.numerator_share
        if rescaled is not None or not weighting.use_weights:
            raise ConfigError(
                f"model.subtraction: {run} must be a ratio of yields, without class weights, "
                "resampling or numerator_share, and with the weights of the data"
            )
        return module.requires_grad_(False)

    @torch.no_grad()
    def weights(self, batch: EventBatch) -> Tensor:
        """Weights of the events (B), less what the subtraction takes away."""
        if self.references is None:
            return batch.weight
        weight = batch.weight
        for label, reference in enumerate(self.references):
            reference.to(weight.device)
            # More simulation than data is a fluctuation: then nothing is left.
            keep = (1 - (-reference.log_ratio(reference(batch))).exp()).clamp(min=0)  # (B)
            weight = torch.where(batch.label == label, weight * keep, weight)
        return weight

    def log_ratio(self, outputs: Tensor) -> Tensor:
        """Logarithm of the ratio (B) that outputs (B, 1) stand for."""
        return self.loss.log_ratio(outputs.squeeze(1))

    def losses(self, batch: EventBatch, outputs: Tensor) -> dict[str, Tensor]:
        """The one loss, whose minimum is at the ratio."""
        return {"ratio": self.loss(outputs.squeeze(1), batch.label, self.weights(batch))}

    def update_metrics(self, stage: str, batch: EventBatch, outputs: Tensor) -> None:
        """Collect the ratios of validation and test events."""
        super().update_metrics(stage, batch, outputs)
        if stage in self.collected:
            truth = None if self.truth is None else batch.auxiliary[:, self.truth]
            weight = self.weights(batch)
            self.collected[stage].update(
                self.log_ratio(outputs),
                batch.label,
                weight,
                batch.auxiliary[:, self.shown],
                truth,
            )

    def log_metrics(self, stage: str) -> None:
        """Log the closure; write and print the figures of a test."""
        if stage not in self.collected:
            return
        collected = self.collected[stage]
        with collected.sync_context():
            figures = density_ratio_figures(collected, self.variables, self.normalise)
            if stage == "test" and not self.trainer.fast_dev_run:
                self._write_evaluation(collected, figures)
        collected.reset()
        self.log_dict({f"{stage}/{name}": value for name, value in figures.items()}, sync_dist=True)

    def predictions(self, batch: EventBatch, outputs: Tensor) -> dict[str, Tensor]:
        """One row an event: its row in the source, label, weight and logarithm of the ratio."""
        return {
            "event": batch.index,
            "label": batch.label,
            "weight": self.weights(batch),
            "log_ratio": self.log_ratio(outputs).float(),
        }

    @rank_zero_only
    def _write_evaluation(self, collected: DensityRatioMetrics, figures: dict[str, float]) -> None:
        folder: Path = self.evaluation_folder
        write_figures(folder, figures)
        if self.variables:
            closures = [
                collected.closure(place, normalise=self.normalise)
                for place in range(len(self.variables))
            ]
            save_figure(plots.plot_closure(closures, self.variables), folder / "closure.png")
        if self.truth is not None:
            ratios = collected.ratios()
            save_figure(plots.plot_ratio(*ratios), folder / "ratio.png")
        print_figures("density ratio", figures)
        print(f"figures and plots written to {folder}")


CONFIG = "density_ratio.yaml"


def main(args: list[str] | None = None) -> None:
    """Train and evaluate a density ratio from the command line."""
    run(DensityRatio, EventData, config=CONFIG, data_links=DATA_LINKS, args=args)


if __name__ == "__main__":
    run_script(__file__)
