"""Regression: energy, time, position and direction of the photon, with uncertainties.

Run as ``python regress.py fit --config regress.yaml`` or ``hepattn xec/regress fit``.
"""

# B events, S sensors, d components of a target, O outputs of all targets

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torchmetrics import CatMetric, MeanMetric
from torchmetrics.utilities import dim_zero_cat

from hepattn.data.error import DataError
from hepattn.data.xec import XecBatch, join
from hepattn.experiments.xec import plots
from hepattn.experiments.xec.data import XecData
from hepattn.experiments.xec.encoder import EncoderOptions
from hepattn.experiments.xec.estimates import (
    NETWORK,
    UNITS,
    Fitted,
    classical,
    fit_classical,
    numbers,
)
from hepattn.experiments.xec.module import XecModule
from hepattn.experiments.xec.regressor import SIZES, Target, XecRegressor
from hepattn.experiments.xec.report import print_regression
from hepattn.experiments.xec.targets import (
    Reference,
    physical,
    physical_spread,
    scaled_target,
    true_target,
    unit,
)
from hepattn.losses.regression import TargetLoss
from hepattn.metrics.resolution import (
    Measured,
    ResidualFigures,
    Residuals,
    bootstrap,
    resolution,
)
from hepattn.training.cli import run, run_script
from hepattn.training.figures import save_figure
from hepattn.training.module import ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable
from hepattn.training.report import write_figures

NUM_FITTED = 500
"""Training events from which other methods learn their scales."""


@dataclass(frozen=True)
class TargetOptions:
    """How a target is learned.

    Args:
        loss: Called with what the network says and the truth, both scaled; one with a variance
            makes the network tell its uncertainty, too.
        weight: Weight of the loss.

    Raises:
        ValueError: If the weight is not positive.
    """

    loss: TargetLoss
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(f"weight={self.weight} must be positive; leave the target out instead")


class Told(NamedTuple):
    """What the network says of events.

    Attributes:
        scaled: Scaled targets, each with its log variances if it has any (B, O).
        reference: What the targets count from.
    """

    scaled: Tensor
    reference: Reference


class XecRegression(XecModule):
    """Tell any of energy, start, position and direction of the photon.

    The direction is a unit vector, or its polar angle and azimuth, the ``angles``.

    Args:
        encoder: What the encoder is made of.
        targets: What is told, and how it is learned: of ``energy``, ``start``, ``position``,
            ``direction`` and ``angles`` any.
        optimizer: Builds the optimiser from the parameter groups.
        schedule: Builds the learning rate schedule; a constant rate by default.
        compile: Whether to compile the network, or the keywords of ``torch.compile``.
        hidden: Features inside the head of a target.
        dropout: Probability of dropping one of them.
        channel_dropout: Probability of taking a sensor from the network in training.
        learned_weights: Whether a learned variance balances each target beside its weight:
            ½ e^-s L + ½ s (arXiv:1705.07115).
        encoder_ckpt: Checkpoint of an autoencoder to start from; none by default.
        freeze_encoder: Whether its encoder stays as it is.
        mirror: Whether training mirrors events at random at z = 0 and at y = 0.

    Raises:
        ValueError: If there is no target, or a probability is out of range.
    """

    # Some losses with a variance fall to zero as the network grows surer.
    monitor = ("val/error", "min")

    def __init__(
        self,
        encoder: EncoderOptions,
        targets: dict[Target, TargetOptions],
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool | dict[str, Any] = False,
        hidden: int = 256,
        dropout: float = 0.2,
        channel_dropout: float = 0.0,
        learned_weights: bool = False,
        encoder_ckpt: str | None = None,
        freeze_encoder: bool = False,
        mirror: bool = True,
    ) -> None:
        if not targets:
            raise ValueError(f"targets is empty; name some of {', '.join(SIZES)}")
        if not 0 <= channel_dropout < 1:
            raise ValueError(f"channel_dropout={channel_dropout} must be at least 0 and below 1")
        variances = {name: options.loss.variance for name, options in targets.items()}
        super().__init__(
            XecRegressor(encoder, variances, hidden, dropout),
            optimizer,
            schedule,
            compile,
            encoder_ckpt,
            freeze_encoder,
            mirror,
        )
        self.weights = {name: options.weight for name, options in targets.items()}
        self.target_losses = nn.ModuleDict({name: o.loss for name, o in targets.items()})
        self.sizes = [o.loss.num_outputs(SIZES[name]) for name, o in targets.items()]
        self.channel_dropout = channel_dropout
        spread = nn.Parameter(torch.zeros(len(targets))) if learned_weights else None
        self.register_parameter("log_variance", spread)
        self.collected = nn.ModuleDict(
            {stage: nn.ModuleDict() for stage in ("val", "test")}
        )  # residuals by number and method, made as they come
        self.seen = CatMetric()  # energy in MeV and depth in cm of the test events (J, 2)
        self.error = MeanMetric()
        self.fitted: Fitted | None = None

    def on_test_start(self) -> None:
        """Fit other methods to training events."""
        super().on_test_start()
        batches: list[XecBatch] = []
        for batch in self.trainer.datamodule.train_dataloader():
            batches.append(batch)
            if sum(map(self.num_events, batches)) >= NUM_FITTED or self.trainer.fast_dev_run:
                break
        known = join(batches)
        if not bool(torch.stack([known.energy, known.start]).isfinite().all()):
            raise DataError("a test needs the truth, and training events lack theirs")
        fitted = self.trainer.strategy.broadcast(tuple(fit_classical(known)))  # one fit for all
        self.fitted = Fitted(*(x.to(self.device) for x in fitted))

    def forward(self, batch: XecBatch) -> Told:
        """Tell the targets of events."""
        photons, time, valid, time_valid = self.network_inputs(batch)
        if self.training and self.channel_dropout:
            valid = valid & (torch.rand(valid.shape, device=valid.device) >= self.channel_dropout)
            time_valid = time_valid & valid
        scaled = self.net(photons, time, valid, time_valid)
        mean_time = self.net.encoder.scaling.reference(photons, time, time_valid)
        return Told(scaled, Reference.of(photons, valid, mean_time))

    def losses(self, batch: XecBatch, outputs: Told) -> dict[str, Tensor]:
        """How far each target is off."""
        losses = {}
        for place, (name, output) in enumerate(self._outputs(outputs).items()):
            truth = scaled_target(name, batch, outputs.reference)
            if not bool(truth.isfinite().all()):
                raise DataError(f"training and tests need the truth, and events lack their {name}")
            loss = self.target_losses[name](output, truth, batch.weight)
            if self.log_variance is not None:
                spread = self.log_variance[place]
                loss = 0.5 * (-spread).exp() * loss + 0.5 * spread
            losses[name] = self.weights[name] * loss
        return losses

    def update_metrics(self, stage: str, batch: XecBatch, outputs: Told) -> None:
        """Collect the residuals of validation and test events, in a test of other methods, too."""
        if stage not in self.collected:
            return
        told = {name: self._physical(name, outputs) for name in self.weights}
        self._collect(stage, NETWORK, batch, told)
        self.error.update(self._errors(batch, outputs)[batch.weight > 0])
        if stage == "test":
            for method, found in classical(batch, self.fitted).items():
                wanted = {n: (value, None) for n, value in found.items() if n in self.weights}
                self._collect(stage, method, batch, wanted)
            self.seen.update(torch.stack([batch.energy, batch.position[:, 2]], 1))

    def _errors(self, batch: XecBatch, outputs: Told) -> Tensor:
        """Mean absolute error of the scaled targets of each event (B)."""
        errors = []
        for name, output in self._outputs(outputs).items():
            told = self.target_losses[name].split(output)[0]
            told = unit(told) if name == "direction" else told  # some losses see the angle alone
            errors.append((told - scaled_target(name, batch, outputs.reference)).abs().mean(1))
        return torch.stack(errors, 1).mean(1)

    def _collect(
        self,
        stage: str,
        method: str,
        batch: XecBatch,
        told: dict[Target, tuple[Tensor, Tensor | None]],
    ) -> None:
        counts = batch.weight > 0  # others only fill up the share of a process
        for name, (value, spread) in told.items():
            for number, estimate in numbers(name, value, true_target(name, batch), spread).items():
                key = f"{number}/{method}".replace(".", "")
                if key not in self.collected[stage]:
                    self.collected[stage][key] = Residuals().to(value.device)
                self.collected[stage][key].update(
                    *(None if each is None else each[counts] for each in estimate)
                )

    def log_metrics(self, stage: str) -> None:
        """Log the resolutions; write and print the figures of a test."""
        if stage not in self.collected:
            return
        collected = self.collected[stage]
        own = {k.split("/")[0]: r for k, r in collected.items() if k.endswith(f"/{NETWORK}")}
        with ExitStack() as synced:
            for metric in (*collected.values(), self.seen):
                synced.enter_context(metric.sync_context())
            values = {f"{stage}/{name}": resolution(r.residual()) for name, r in own.items()}
            values[f"{stage}/error"] = self.error.compute()
            if stage == "test" and not self.trainer.fast_dev_run:
                self._write_evaluation()
        for metric in (*collected.values(), self.seen, self.error):
            metric.reset()
        self.log_dict(values, sync_dist=True, prog_bar=stage == "val")

    def predictions(self, batch: XecBatch, outputs: Told) -> dict[str, Tensor]:
        """One row an event: its numbers, what is told and how sure, and the truth if it is known.

        Energy in MeV, start in ns on the clock of the run where that is known and else after the
        first time, position in cm, direction as a unit vector, angles in radians.
        """
        columns = {"run": batch.run, "event": batch.event}
        for name in self.weights:
            value, spread = self._physical(name, outputs)
            truth = true_target(name, batch)
            if name == "start":
                clock = torch.nan_to_num(batch.first_time).unsqueeze(1)
                value, truth = value + clock, truth + clock
            labels = COLUMNS[name]
            columns |= dict(zip(labels, value.unbind(1), strict=True))
            if spread is not None:
                errors = (f"{label}_error" for label in labels)
                columns |= dict(zip(errors, spread.unbind(1), strict=True))
            if bool(truth.isfinite().any()):
                truths = (f"true_{label}" for label in labels)
                columns |= dict(zip(truths, truth.unbind(1), strict=True))
        return columns

    def _outputs(self, outputs: Told) -> dict[Target, Tensor]:
        """What the network says of each target (B, d or 2d)."""
        parts = outputs.scaled.float().split(self.sizes, 1)
        return dict(zip(self.weights, parts, strict=True))

    def _physical(self, name: Target, outputs: Told) -> tuple[Tensor, Tensor | None]:
        """A target and, if it is told, its standard deviation, in the units of `XecBatch`."""
        loss, output = self.target_losses[name], self._outputs(outputs)[name]
        value = physical(name, loss.split(output)[0], outputs.reference)
        if not loss.has_variance:
            return value, None
        spread = physical_spread(name, loss.standard_deviation(output), outputs.reference)
        return value, spread

    @rank_zero_only
    def _write_evaluation(self) -> None:
        folder: Path = self.evaluation_folder
        residuals: dict[str, dict[str, Residuals]] = {}
        for key, found in self.collected["test"].items():
            number, method = key.split("/")
            residuals.setdefault(number, {})[method] = found
        figures = {
            number: {method: _plain(found.figures()) for method, found in methods.items()}
            for number, methods in residuals.items()
        }
        write_figures(folder, {"units": {number: UNITS[number] for number in figures}, **figures})
        arrays = {n: {m: r.residual() for m, r in found.items()} for n, found in residuals.items()}
        units = [UNITS[number] for number in arrays]
        save_figure(plots.plot_residuals(arrays, units), folder / "residuals.png")
        energy, depth = dim_zero_cat(self.seen.value).cpu().numpy().T
        own = {number: methods[NETWORK] for number, methods in arrays.items()}
        against = {"energy [MeV]": energy, "depth w [cm]": depth}
        save_figure(plots.plot_resolution(own, units, against), folder / "resolution.png")
        told = {n: found[NETWORK].arrays()[2] for n, found in residuals.items()}
        pairs = {n: (own[n], spread) for n, spread in told.items() if (spread == spread).all()}
        if pairs:
            save_figure(plots.plot_calibration(pairs), folder / "calibration.png")
        rows = {
            number: {m: bootstrap(resolution, r) for m, r in methods.items()}
            for number, methods in arrays.items()
        }
        print_regression(rows, UNITS)
        print(f"figures and plots written to {folder}")


def _plain(figures: ResidualFigures) -> dict[str, float]:
    """Figures by name, with the errors of those that have one."""
    plain: dict[str, float] = {}
    for name, value in figures._asdict().items():
        if isinstance(value, Measured):
            plain |= {name: value.value, f"{name}_error": value.error}
        else:
            plain[name] = value
    return plain


COLUMNS: dict[Target, tuple[str, ...]] = {
    "energy": ("energy",),
    "start": ("start",),
    "position": ("u", "v", "w"),
    "direction": ("direction_x", "direction_y", "direction_z"),
    "angles": ("theta", "phi"),
}
"""Names of the columns of a prediction."""
CONFIG = "regress.yaml"


def main(args: list[str] | None = None) -> None:
    """Run the regression from the command line."""
    run(XecRegression, XecData, config=CONFIG, args=args)


if __name__ == "__main__":
    run_script(__file__)
