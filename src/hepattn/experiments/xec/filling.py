"""Tell what hidden sensors saw: the task that autoencoder and inpainting share."""

# B events, S sensors, O channels that are told, J hidden sensors

from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from hepattn.data.xec import XecBatch
from hepattn.experiments.xec import baselines, plots
from hepattn.experiments.xec.masking import MaskOptions, MaskSampler
from hepattn.experiments.xec.module import XecModule
from hepattn.experiments.xec.reconstruction import ReconstructionLoss, ReconstructionOptions
from hepattn.experiments.xec.report import print_filling
from hepattn.metrics.grouped_errors import GroupedErrors
from hepattn.physics import xec
from hepattn.training.figures import save_figure
from hepattn.training.module import ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable
from hepattn.training.report import write_figures

NETWORK, MEAN, SOLID_ANGLE = "network", "neighbour mean", "solid angle"


class Filled(NamedTuple):
    """What the network says of sensors.

    Attributes:
        scaled: Photons and, perhaps, times, both scaled (B, S, O); of hidden sensors at least.
        hidden: Sensors that it did not see (B, S).
        reference: Time from which scaled times count, in ns (B).
    """

    scaled: Tensor
    hidden: Tensor
    reference: Tensor


class FillingModule(XecModule):
    """Hide sensors from a network that tells what they saw.

    In an evaluation the event alone decides which are hidden, and a prediction fills in those that
    are not known, such as dead ones.

    Args:
        net: The network, with the properties ``encoder`` and ``covered``.
        mask: Which sensors are hidden.
        reconstruction: What the loss weighs.
        optimizer: Builds the optimiser from the parameter groups.
        schedule: Builds the learning rate schedule; a constant rate by default.
        compile: Whether to compile the network, or the keywords of ``torch.compile``.
        encoder_ckpt: Checkpoint whose encoder to start from; none by default.
        freeze_encoder: Whether it stays as it is.
        mirror: Whether training mirrors events at random.
    """

    def __init__(
        self,
        net: nn.Module,
        mask: MaskOptions,
        reconstruction: ReconstructionOptions,
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool | dict[str, Any] = False,
        encoder_ckpt: str | None = None,
        freeze_encoder: bool = False,
        mirror: bool = True,
    ) -> None:
        super().__init__(net, optimizer, schedule, compile, encoder_ckpt, freeze_encoder, mirror)
        self.sampler = MaskSampler(mask)
        self.loss = ReconstructionLoss(reconstruction)
        self.collected = nn.ModuleDict(
            {
                stage: GroupedErrors((NETWORK, MEAN, SOLID_ANGLE), len(xec.FACES))
                for stage in ("val", "test")
            }
        )
        self.display: tuple[Tensor, ...] | None = None

    def fill(self, *inputs: Tensor, wanted: Tensor) -> Tensor:
        """What the network says of the wanted sensors (B, S, O), given what is visible."""
        raise NotImplementedError(f"{type(self).__name__} must define fill")

    def forward(self, batch: XecBatch) -> Filled:
        """Hide sensors and tell what they saw, or in a prediction those that are not known."""
        predicting = self._trainer is not None and self.trainer.predicting
        hidden = torch.zeros_like(batch.valid)
        if not predicting:
            known = batch.valid & self.net.covered
            hidden = self.sampler(batch.photons, known, self.noise(batch))
        valid, time_valid = batch.valid & ~hidden, batch.time_valid & ~hidden
        wanted = ~batch.valid & self.net.covered if predicting else hidden
        scaled = self.fill(batch.photons, batch.time, valid, time_valid, wanted=wanted)
        reference = self.net.encoder.scaling.reference(batch.photons, batch.time, time_valid)
        return Filled(scaled, wanted, reference)

    def losses(self, batch: XecBatch, outputs: Filled) -> dict[str, Tensor]:
        """How far photons and times of hidden sensors are off."""
        scaling = self.net.encoder.scaling
        truth = [
            scaling.scale_photons(batch.photons),
            scaling.scale_time(batch.time, outputs.reference),
        ]
        return self.loss(
            outputs.scaled,
            torch.stack(truth, -1),
            batch.photons,
            outputs.hidden,
            outputs.hidden & batch.time_valid,
            batch.weight,
        )

    def update_metrics(self, stage: str, batch: XecBatch, outputs: Filled) -> None:
        """Add up errors of the root of the photons, whose noise is the same everywhere."""
        if stage not in self.collected:
            return
        hidden = outputs.hidden & (batch.weight > 0).unsqueeze(1)
        told = {NETWORK: self._photons(outputs)}
        if stage == "test":
            seen = batch.valid & ~hidden
            told |= classical(batch.photons, seen)
            if self.display is None:
                shown = (batch.photons, seen, hidden, told[NETWORK])
                self.display = tuple(part[0].cpu() for part in shown)
        truth = batch.photons[hidden].clamp(min=0).sqrt()  # (J)
        errors = {n: x[hidden].clamp(min=0).sqrt() - truth for n, x in told.items()}
        group = self.sampler.face.to(hidden.device).expand_as(hidden)[hidden]
        self.collected[stage].update(errors, group)

    def log_metrics(self, stage: str) -> None:
        """Log the error; write and print the figures of a test."""
        if stage not in self.collected:
            return
        collected = self.collected[stage]
        with collected.sync_context():
            summary = collected.summary()
            if stage == "test" and not self.trainer.fast_dev_run:
                self._write_evaluation(summary)
        self.display = None
        collected.reset()
        values = {f"{stage}/rms": summary[NETWORK]["rms"]} if NETWORK in summary else {}
        self.log_dict(values, sync_dist=True, prog_bar=stage == "val")

    def predictions(self, batch: XecBatch, outputs: Filled) -> dict[str, Tensor]:
        """One row a sensor that was told: run, event, sensor and its photons and time."""
        hidden = outputs.hidden
        sensor = torch.arange(hidden.shape[1], device=hidden.device).expand_as(hidden)
        columns = {
            name: field.unsqueeze(1).expand_as(hidden)[hidden]
            for name, field in (("run", batch.run), ("event", batch.event))
        }
        columns |= {"sensor": sensor[hidden], "photons": self._photons(outputs)[hidden]}
        if outputs.scaled.shape[-1] > 1:
            scaling = self.net.encoder.scaling
            time = scaling.unscale_time(outputs.scaled[..., 1].float(), outputs.reference)
            columns["time"] = time[hidden]
        if not self.trainer.predicting:
            columns["true_photons"] = batch.photons[hidden]
        return columns

    def _photons(self, outputs: Filled) -> Tensor:
        """Photons that the network tells (B, S)."""
        return self.net.encoder.scaling.unscale_photons(outputs.scaled[..., 0].float())

    @rank_zero_only
    def _write_evaluation(self, summary: dict[str, dict[str, object]]) -> None:
        folder: Path = self.evaluation_folder
        write_figures(folder, {"faces": list(xec.FACES), "root_photons": summary})
        photons, seen, hidden, told = self.display
        filled = torch.where(hidden, told, torch.where(seen, photons, 0.0))
        known = seen | hidden
        panels = {
            "truth": (photons, known),
            "visible": (photons, seen),
            "visible and filled in": (filled, known),
        }
        figure = plots.plot_events({n: (x.numpy(), k.numpy()) for n, (x, k) in panels.items()})
        save_figure(figure, folder / "event.png")
        save_figure(plots.plot_errors(summary), folder / "errors.png")
        print_filling(summary)
        print(f"figures and plots written to {folder}")


def classical(photons: Tensor, seen: Tensor) -> dict[str, Tensor]:
    """What estimates without a network say of all sensors, each (B, S).

    Args:
        photons: Photons (B, S), looked at where they are seen.
        seen: Sensors that are seen (B, S).
    """
    uv = baselines.centroid(photons, seen)
    depth, _ = baselines.least_squares_depth(photons, seen, uv)
    source = xec.uvw_to_xyz(torch.cat([uv, depth.unsqueeze(1)], 1).cpu().numpy())
    source = torch.from_numpy(source).to(photons)
    return {
        MEAN: baselines.neighbour_mean(photons, seen),
        SOLID_ANGLE: baselines.solid_angle_estimate(photons, seen, source),
    }
