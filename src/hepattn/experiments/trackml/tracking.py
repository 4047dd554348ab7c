"""Tracking: assign hits to the tracks of charged particles.

Run as ``python tracking.py fit --config tracking.yaml`` or ``hepattn trackml/tracking fit``.
"""

# B events, M queries, N hits, P particles, F features

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from torch import Tensor, nn

from hepattn.data.error import DataError
from hepattn.data.trackml import HitBatch, SubmissionWriter, event_number, make_targets
from hepattn.data.trackml.table import find_rows
from hepattn.experiments.trackml import tracking_plots
from hepattn.experiments.trackml.data import TrackMLData
from hepattn.experiments.trackml.plots import save_figure
from hepattn.experiments.trackml.report import print_tracking_figures, write_figures
from hepattn.experiments.trackml.tracks import (
    PARAMETER_NAMES,
    first_hits,
    form_tracks,
    particle_parameters,
)
from hepattn.losses.set_prediction import SetPredictionLoss
from hepattn.metrics.tracking import TrackingFigures, TrackingMetrics
from hepattn.models.mask_former import FoundObjects, MaskFormer
from hepattn.nn.attention_maps import record_attention
from hepattn.nn.normalise import Feature
from hepattn.nn.queries import DynamicQueries
from hepattn.physics.track_fit import fit_helices
from hepattn.training.cli import run, run_script
from hepattn.training.module import BaseModule, ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable


class Tracking(BaseModule):
    """A network that finds tracks among hits.

    Args:
        features: Columns of the input; the data decides them.
        net: Builds the network from the feature list.
        loss: Matches the queries to the particles and compares them.
        seed_loss: Called with logits, labels and valid, each (B, N), where queries are made of
            the first hits of particles.
        optimizer: Builds the optimiser from the parameter groups.
        schedule: Builds the learning rate schedule; a constant rate by default.
        compile: Whether to compile the network.
        object_threshold: Smallest object score of a track, in (0, 1).
        mask_threshold: Smallest mask score of a hit of a track, in (0, 1).
        min_hits: Fewest hits of a track; the data's selection decides it.

    Raises:
        ValueError: If a threshold is out of range, seeds are to be found and the features lack
            ``r``, or the loss asks for what the network does not answer.
    """

    def __init__(
        self,
        features: tuple[Feature, ...],
        net: Callable[[Sequence[Feature]], MaskFormer],
        loss: SetPredictionLoss,
        seed_loss: nn.Module,
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool = False,
        object_threshold: float = 0.5,
        mask_threshold: float = 0.5,
        min_hits: int = 3,
    ) -> None:
        super().__init__(net(features), optimizer, schedule, compile)
        for name, value in (
            ("object_threshold", object_threshold),
            ("mask_threshold", mask_threshold),
        ):
            if not 0 < value < 1:
                raise ValueError(f"{name}={value} must be in (0, 1)")
        self.names = [feature.name for feature in features]
        _check_parts(self.net, loss, self.names)
        self.loss = loss
        self.seed_loss = seed_loss
        self.object_threshold = object_threshold
        self.mask_threshold = mask_threshold
        self.min_hits = min_hits
        self.collected = nn.ModuleDict(
            {stage: TrackingMetrics(min_hits) for stage in ("val", "test")}
        )
        self.display: HitBatch | None = None
        self.submission: SubmissionWriter | None = None

    def forward(self, batch: HitBatch) -> FoundObjects:
        """Find the tracks."""
        return self.net(batch.hits, batch.valid)

    def losses(self, batch: HitBatch, outputs: FoundObjects) -> dict[str, Tensor]:
        """Are the queries tracks, are their hits the right ones, are the seeds found?"""
        parameters = None
        if outputs.layers[-1].parameters is not None:
            parameters = particle_parameters(batch.particles)
        terms, _ = self.loss(
            outputs.layers,
            outputs.query_valid,
            batch.particle_index,
            batch.particle_valid,
            batch.valid,
            parameters,
            outputs.seed,
        )
        if outputs.seed_logit is not None:
            r = batch.hits[..., self.names.index("r")]
            first = first_hits(batch.particle_index, r, batch.particles.shape[1])
            terms["seed"] = self.seed_loss(outputs.seed_logit, first, batch.valid)
        return terms

    def tracks(self, batch: HitBatch, outputs: FoundObjects) -> Tensor:
        """The track of each hit (B, N), -1 for none."""
        return form_tracks(
            outputs.layers[-1],
            outputs.query_valid,
            batch.valid,
            self.object_threshold,
            self.mask_threshold,
            self.min_hits,
        )

    def update_metrics(self, stage: str, batch: HitBatch, outputs: FoundObjects) -> None:
        """Match the tracks of validation and test events to particles."""
        if stage not in self.collected:
            return
        track = self.tracks(batch, outputs)
        self.collected[stage].update(
            track,
            batch.valid,
            batch.particle_id,
            batch.num_particle_hits,
            batch.particle_index,
            batch.particles,
            batch.particle_valid,
            batch.event,
            self._fit(batch, track, outputs.query_valid.shape[1]) if stage == "test" else None,
        )
        if stage == "test" and self.display is None and batch.valid.any():
            row = int(batch.valid.any(1).int().argmax())  # the first event that has hits
            self.display = HitBatch(*(field[row : row + 1] for field in batch))

    def log_metrics(self, stage: str) -> None:
        """Log the figures; write, draw and print those of a test."""
        if stage not in self.collected:
            return
        collected = self.collected[stage]
        with collected.sync_context():
            figures = collected.figures()
            if stage == "test" and not self.trainer.fast_dev_run:
                self._write_evaluation(figures, collected.figures(after_filter=True))
                self.display = None
        collected.reset()
        numbers = {f"{stage}/{name}": value for name, value in figures.scalars().items()}
        numbers = {name: value for name, value in numbers.items() if not math.isnan(value)}
        self.log_dict(numbers, sync_dist=True)

    def predictions(self, batch: HitBatch, outputs: FoundObjects) -> dict[str, Tensor]:
        """One row a hit: its event, its id, its track (-1 for none) and the track's score."""
        track = self.tracks(batch, outputs)
        score = outputs.layers[-1].object_logit.float().sigmoid()  # (B, M)
        score = score.gather(1, track.clamp(min=0)).masked_fill(track < 0, 0.0)  # (B, N)
        return {
            "event": batch.event.unsqueeze(1).expand_as(batch.valid)[batch.valid],
            "hit_id": batch.hit_id[batch.valid],
            "track": track[batch.valid],
            "score": score[batch.valid],
        }

    def on_predict_start(self) -> None:
        """Choose the folder of this prediction and open the submission."""
        super().on_predict_start()
        if not self.trainer.fast_dev_run:
            rank = f"_rank{self.global_rank}" if self.trainer.world_size > 1 else ""
            path = self.evaluation_folder / f"submission{rank}.csv"
            self.submission = SubmissionWriter(path, self.trainer.datamodule.source)

    def predict_step(self, batch: HitBatch, batch_idx: int) -> dict[str, Tensor]:
        """Find the tracks of a batch and add them to the submission."""
        outputs = self(batch)
        if self.submission is not None:
            track = self.tracks(batch, outputs)
            for row, event in enumerate(batch.event.tolist()):
                real = batch.valid[row]
                hit_id, found = (field[row][real].cpu().numpy() for field in (batch.hit_id, track))
                self._submit(event, hit_id, found)
        return self.predictions(batch, outputs)

    def on_predict_end(self) -> None:
        """Give the complete submission its name."""
        if self.submission is not None:
            self.submission.close()
            print(f"submission of {len(self.submission.events)} events: {self.submission.path}")
            self.submission = None

    def on_exception(self, exception: BaseException) -> None:
        """Remove an incomplete submission."""
        if self.submission is not None:
            self.submission.discard()

    def _submit(self, event: int, hit_id: np.ndarray, track: np.ndarray) -> None:
        try:
            self.submission.add(event, hit_id, track)
        except DataError:
            # An event that can't be read was logged and came as one without hits.
            if len(hit_id) or not self.trainer.datamodule.skip_bad:
                raise

    def _fit(self, batch: HitBatch, track: Tensor, num_queries: int) -> Tensor | None:
        """Helices through the hits of the tracks (B, M, 5), where the input has positions."""
        if not {"x", "y", "z"} <= set(self.names):
            return None
        position = batch.hits[..., [self.names.index(name) for name in "xyz"]]
        row = torch.arange(len(track), device=track.device).unsqueeze(1)
        chosen = track >= 0
        index = (row * num_queries + track)[chosen]
        num_tracks = len(track) * num_queries
        field = self.trainer.datamodule.simulation.field
        fit = fit_helices(position[chosen], index, num_tracks, field)
        return fit.unflatten(0, (len(track), num_queries))

    @rank_zero_only
    def _write_evaluation(self, before: TrackingFigures, after: TrackingFigures) -> None:
        folder = self.evaluation_folder
        write_figures(folder, {"before_filter": before, "after_filter": after})
        self._draw(folder)
        print_tracking_figures(before, after)
        print(f"figures and plots written to {folder}")

    def _draw(self, folder: Path) -> None:
        collected = self.collected["test"]
        tracks = collected.track_table()
        drawn = {
            "efficiency": tracking_plots.plot_efficiency(collected.particle_table()),
            "fake_rate": tracking_plots.plot_fake_rate(tracks),
            "residuals": tracking_plots.plot_residuals(tracks),
        }
        if self.display is not None:
            drawn |= {"event": self._draw_event(), "attention": self._draw_attention()}
        for name, figure in drawn.items():
            if figure is not None:
                save_figure(figure, folder / f"{name}.png")

    def _draw_event(self) -> Figure:
        """Draw the first event, with the hits that the filter dropped."""
        batch, data = self.display, self.trainer.datamodule
        numbers = [event_number(name) for name in data.source.names]
        event = data.source.read(numbers.index(int(batch.event[0])))
        targets = make_targets(event, data.selection)
        hits = {name: column[targets.selected] for name, column in event.hits.items()}
        track = np.full(len(hits["hit_id"]), -1)
        kept = batch.valid[0].cpu()
        rows = find_rows(hits["hit_id"], batch.hit_id[0].cpu()[kept].numpy())
        track[rows] = self.tracks(batch, self(batch))[0].cpu()[kept].numpy()
        was_kept = np.zeros(len(track), dtype=bool)
        was_kept[rows] = True
        position = np.stack([hits[name] for name in "xyz"], 1).astype(float)
        index = targets.particle_index[targets.selected]
        return tracking_plots.plot_tracks(position, index, was_kept, track)

    def _draw_attention(self) -> Figure | None:
        """Draw what the queries of the first event attend to, averaged over the heads."""
        batch = self.display
        with record_attention(self.net.decoder) as recorded:  # all pairs of hits are many
            outputs = self(batch)
        maps = [m[0].mean(0) for name, m in recorded.items() if name.endswith("cross_attention")]
        if not maps or "phi" not in self.names:  # steps of k-means have no weights
            return None
        real, queries = batch.valid[0].cpu(), outputs.query_valid[0].cpu()
        phi = batch.hits[0, :, self.names.index("phi")].cpu()[real]
        if self.net.sort_column is not None:
            phi = phi.sort().values
        weights = torch.stack(maps).cpu()[:, queries][:, :, : len(phi)]  # (L, M, N)
        return tracking_plots.plot_attention(weights.numpy(), phi.numpy())


def _check_parts(net: MaskFormer, loss: SetPredictionLoss, names: Sequence[str]) -> None:
    """Refuse a loss that asks for what the network does not answer."""
    if isinstance(net.queries, DynamicQueries):
        if "r" not in names:
            raise ValueError(
                "queries are made of first hits, which need the feature r; add it to "
                "data.features, or use LearnedQueries"
            )
    elif loss.costs.seed:
        raise ValueError(
            f"costs.seed={loss.costs.seed} needs queries that are made of hits, as "
            "DynamicQueries are; set it to 0"
        )
    number, wanted = net.decoder.num_parameters, len(PARAMETER_NAMES)
    regression = loss.weights.regression or loss.costs.regression
    if number not in (0, wanted) or (regression and not number):
        raise ValueError(
            f"num_parameters={number} of the decoder with regression={regression} in the loss must "
            f"be {wanted}, for {', '.join(PARAMETER_NAMES)}, or both must be 0"
        )


LINKS = {"data.features": "model.features", "data.selection.min_hits": "model.min_hits"}


def main(args: list[str] | None = None) -> None:
    """Run the tracking from the command line."""
    run(Tracking, TrackMLData, config="tracking.yaml", links=LINKS, args=args)


if __name__ == "__main__":
    run_script(__file__)
