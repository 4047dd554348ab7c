"""Density ratios: how much likelier is this event in one sample than in another?

Run as ``python density_ratio.py fit --config density_ratio.yaml`` or
``hepattn events/density_ratio fit``.
"""

# B events, M members, one without an ensemble

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from hepattn.data.events import EventBatch
from hepattn.experiments.events import plots
from hepattn.experiments.events.data import EventData
from hepattn.experiments.events.ensemble import Ensemble, mean_log_ratio, relative_spread
from hepattn.experiments.events.module import DATA_LINKS, EventModule, EventNetwork, KernelName
from hepattn.experiments.events.report import density_ratio_figures, print_figures
from hepattn.experiments.events.subtraction import Subtraction, kept_share, quantiles_of_kept
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
        ensemble: Heads that each learn the ratio for themselves; one output by default. The ratio
            is then their mean, and their spread its uncertainty.

    Raises:
        ValueError: If there are not two classes, the truth is no auxiliary column, or the ensemble
            names another class.
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
        ensemble: Ensemble | None = None,
    ) -> None:
        if len(classes) != 2:
            raise ValueError(f"a density ratio is of two classes, not of {list(classes)}")
        if truth is not None and truth not in auxiliary:
            raise ValueError(f"truth={truth} must be one of data.auxiliary={list(auxiliary)}")
        built = net if ensemble is None else lambda *given: ensemble.wrap(net(*given))
        super().__init__(
            schema,
            1 if ensemble is None else ensemble.dim,
            built,
            loss,
            optimizer,
            schedule,
            compile,
            attention_backend,
            sdpa_kernels,
        )
        self.ensemble = ensemble
        self.num_members = 1 if ensemble is None else ensemble.num_members
        norms = None if ensemble is None else ensemble.norms(classes)  # (2, M)
        self.register_buffer("norms", norms, persistent=False)  # the config has them
        self.truth = None if truth is None else auxiliary.index(truth)
        self.variables = tuple(name for name in auxiliary if name != truth)
        self.shown = [auxiliary.index(name) for name in self.variables]
        self.subtraction = subtraction
        self.normalise = loss.numerator_share is not None  # then shapes are what is learned
        self.references: tuple[DensityRatio, DensityRatio] | None = None
        is_clipped = subtraction is not None and subtraction.weight_clip_quantile is not None
        # Of the denominator and the numerator; the training events say how much.
        self.register_buffer("most_kept", torch.full((2,), torch.nan) if is_clipped else None)
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
        is_open = self.most_kept is not None and bool(self.most_kept.isnan().any())
        if is_open and self.trainer.ckpt_path is None:
            self.most_kept.copy_(self._find_most_kept())

    def _open(self, run: str, label: int) -> "DensityRatio":
        """Open the run whose ratio weighs events of a label down, and see that it can."""
        loaded = load_run(run)
        if not isinstance(loaded.module, DensityRatio):
            raise ConfigError(f"model.subtraction: {run} is no run of a density ratio")
        module, data = loaded.module, self.trainer.datamodule
        if module.schema != self.schema or module.schema.kinds != self.schema.kinds:
            raise ConfigError(
                f"model.subtraction: {run} was trained on other columns; use the same data.inputs"
            )
        if 1 < module.num_members != self.num_members > 1:
            raise ConfigError(
                f"model.subtraction: {run} has {module.num_members} members, this run "
                f"{self.num_members}; give both as many, or one of them no ensemble"
            )
        share = module.loss.numerator_share
        self.subtraction.check(run, loaded.data, share, data, label)
        return module.requires_grad_(False)

    def _find_most_kept(self) -> Tensor:
        """Where the shares that the subtraction leaves of the training events are cut (2)."""
        parts = [
            (batch.label, self._kept(batch).cpu())
            for batch in self.trainer.datamodule.training_events()
        ]
        label, kept = (torch.cat(part) for part in zip(*parts, strict=True))
        return quantiles_of_kept(kept, label, self.subtraction.weight_clip_quantile)

    @torch.no_grad()
    def _kept(self, batch: EventBatch) -> Tensor:
        """What the subtraction leaves of each event by each member (B, M) or by all (B, 1)."""
        ratios = []
        for reference in self.references:
            reference.to(batch.weight.device)
            ratios.append(reference.member_log_ratios(reference(batch)))  # (B, M or 1)
        log_ratio = torch.where((batch.label == 1).unsqueeze(1), ratios[1], ratios[0])
        return kept_share(log_ratio, self.subtraction.of)

    def member_weights(self, batch: EventBatch) -> Tensor:
        """Weights of the events for each member (B, M) or, all alike, (B, 1); without copies."""
        weight = batch.weight.unsqueeze(1)  # (B, 1)
        if self.references is None:
            return weight
        kept = self._kept(batch)
        if self.most_kept is not None:
            most = self.most_kept[(batch.label == 1).long()]  # (B)
            kept = torch.minimum(kept, most.unsqueeze(1))
        return weight * (kept if self.num_members > 1 else kept.mean(1, keepdim=True))

    def weights(self, batch: EventBatch) -> Tensor:
        """Weights of the events (B), less what the subtraction takes away."""
        return self.member_weights(batch).mean(1)

    def member_log_ratios(self, outputs: Tensor) -> Tensor:
        """Logarithm of the ratio by each member (B, M)."""
        return self.loss.log_ratio(outputs)

    def losses(self, batch: EventBatch, outputs: Tensor) -> dict[str, Tensor]:
        """The mean of the members' losses; the minimum of each is at the ratio."""
        weight = self.member_weights(batch)  # (B, M or 1)
        if self.ensemble is not None:
            weight = weight * self.norms[(batch.label == 1).long()]
            if self.training and self.ensemble.poisson_bootstrap:
                weight = weight * self.ensemble.copies(batch)
        terms, skipped = [], []
        for f, own in zip(outputs.unbind(1), weight.expand_as(outputs).unbind(1), strict=True):
            terms.append(self.loss(f, batch.label, own))
            skipped.append(self.loss.skipped)
        self.loss.skipped = torch.stack(skipped).all()
        return {"ratio": torch.stack(terms).mean()}

    def update_metrics(self, stage: str, batch: EventBatch, outputs: Tensor) -> None:
        """Collect the ratios of validation and test events."""
        super().update_metrics(stage, batch, outputs)
        if stage in self.collected:
            truth = None if self.truth is None else batch.auxiliary[:, self.truth]
            log_ratio = self.member_log_ratios(outputs)
            self.collected[stage].update(
                mean_log_ratio(log_ratio),
                batch.label,
                self.weights(batch),
                batch.auxiliary[:, self.shown],
                truth,
                None if self.ensemble is None else relative_spread(log_ratio),
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
        """One row an event: its row in the source, label, weight and logarithm of the ratio.

        Of an ensemble also what each member says, and the spread of their ratios over the mean.
        """
        log_ratio = self.member_log_ratios(outputs).float()  # (B, M)
        columns = {
            "event": batch.index,
            "label": batch.label,
            "weight": self.weights(batch),
            "log_ratio": mean_log_ratio(log_ratio),
        }
        if self.ensemble is not None:
            columns["spread"] = relative_spread(log_ratio)
            columns |= {f"log_ratio_{m}": own for m, own in enumerate(log_ratio.unbind(1))}
        return columns

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
