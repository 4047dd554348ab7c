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
from torch import Tensor, nn

from hepattn.data.error import DataError
from hepattn.data.trackml import HitBatch, SubmissionWriter
from hepattn.experiments.trackml import tracking_plots
from hepattn.experiments.trackml.data import TrackMLData
from hepattn.experiments.trackml.event_display import draw_attention, draw_event
from hepattn.experiments.trackml.report import print_tracking_figures
from hepattn.experiments.trackml.track_finder import TrackFinder
from hepattn.experiments.trackml.tracks import (
    PARAMETER_NAMES,
    first_hits,
    form_tracks,
    particle_parameters,
    track_estimates,
)
from hepattn.losses.set_prediction import SetPredictionLoss
from hepattn.metrics.tracking import TrackingFigures, TrackingMetrics
from hepattn.models.mask_former import FoundObjects, MaskFormer
from hepattn.nn.normalise import Feature
from hepattn.nn.queries import DynamicQueries
from hepattn.physics.track_fit import FIT_COLUMNS, fit_helices
from hepattn.training.cli import run, run_script
from hepattn.training.figures import save_figure
from hepattn.training.module import BaseModule, ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable
from hepattn.training.report import write_figures


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
        self.num_full = 0  # events that may have had more seeds than queries

    def forward(self, batch: HitBatch) -> FoundObjects:
        """Find the tracks."""
        return self.net(batch.hits, batch.valid)

    def network_inputs(self, batch: HitBatch) -> tuple[Tensor, Tensor]:
        """Raw hit columns (B, N, F) and which are real (B, N)."""
        return batch.hits, batch.valid

    def exported_net(self) -> TrackFinder:
        """The network without the answers that only training needs."""
        return TrackFinder(self.net)

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
        self._count_full(outputs)
        self.collected[stage].update(
            track,
            batch.valid,
            batch.particle_id,
            batch.num_particle_hits,
            batch.particle_index,
            batch.particles,
            batch.particle_valid,
            batch.event,
            self._fit(batch, track, outputs) if stage == "test" else None,
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
        self.num_full = 0
        numbers = {f"{stage}/{name}": value for name, value in figures.scalars().items()}
        numbers = {name: value for name, value in numbers.items() if not math.isnan(value)}
        self.log_dict(numbers, sync_dist=True)

    def predictions(self, batch: HitBatch, outputs: FoundObjects) -> dict[str, Tensor]:
        """One row a hit: its event, its id, its track (-1 for none) and what is said of it.

        That is the track's score and, where the network estimates them, its ``pt``, ``eta``,
        ``phi`` and ``z0`` in GeV, rad and mm; NaN without a track.
        """
        return self._columns(batch, outputs, self.tracks(batch, outputs))

    def _columns(self, batch: HitBatch, outputs: FoundObjects, track: Tensor) -> dict[str, Tensor]:
        query = track.clamp(min=0)
        answer = outputs.layers[-1]
        score = answer.object_logit.float().sigmoid().gather(1, query)  # (B, N)
        columns = {
            "event": batch.event.unsqueeze(1).expand_as(batch.valid),
            "hit_id": batch.hit_id,
            "track": track,
            "score": score.masked_fill(track < 0, 0.0),
        }
        if answer.parameters is not None:
            estimates = track_estimates(answer.parameters.float())  # (B, M, 5)
            for name, estimate in zip(FIT_COLUMNS[:4], estimates.unbind(-1), strict=False):
                columns[name] = estimate.gather(1, query).masked_fill(track < 0, math.nan)
        return {name: column[batch.valid] for name, column in columns.items()}

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
        track = self.tracks(batch, outputs)
        self._count_full(outputs)
        if self.submission is not None:
            for row, event in enumerate(batch.event.tolist()):
                real = batch.valid[row]
                hit_id, found = (field[row][real].cpu().numpy() for field in (batch.hit_id, track))
                self._submit(event, hit_id, found)
        return self._columns(batch, outputs, track)

    def on_predict_end(self) -> None:
        """Give the complete submission its name."""
        self._report_full()
        if self.submission is not None:
            self.submission.close()
            print(f"submission of {len(self.submission.events)} events: {self.submission.path}")
            self.submission = None

    def on_exception(self, exception: BaseException) -> None:
        """Remove an incomplete submission."""
        if self.submission is not None:
            self.submission.discard()

    def _count_full(self, outputs: FoundObjects) -> None:
        if outputs.seed is not None:
            num_queries = outputs.query_valid.sum(1)
            self.num_full += int((num_queries == self.net.queries.num_queries).sum())

    def _report_full(self) -> None:
        if self.num_full:
            print(
                f"{self.num_full} events used all num_queries={self.net.queries.num_queries} "
                "queries: tracks may be missing; raise num_queries, which needs no new training"
            )
        self.num_full = 0

    def _submit(self, event: int, hit_id: np.ndarray, track: np.ndarray) -> None:
        try:
            self.submission.add(event, hit_id, track)
        except DataError:
            # An event that can't be read was logged and came as one without hits.
            if len(hit_id) or not self.trainer.datamodule.skip_bad:
                raise

    def _fit(self, batch: HitBatch, track: Tensor, outputs: FoundObjects) -> Tensor | None:
        """Parameters of the tracks (B, M, 5), by the network or by helices through their hits."""
        if outputs.layers[-1].parameters is not None:
            return track_estimates(outputs.layers[-1].parameters)
        num_queries = outputs.query_valid.shape[1]
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
        self._report_full()
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
            outputs = self(self.display)
            track = self.tracks(self.display, outputs)
            drawn["event"] = draw_event(self.display, track, self.trainer.datamodule)
            drawn["attention"] = draw_attention(self.display, self.names, self.net)
        for name, figure in drawn.items():
            if figure is not None:
                save_figure(figure, folder / f"{name}.png")


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
    if number not in (0, wanted) or bool(loss.weights.regression) != bool(number):
        raise ValueError(
            f"num_parameters={number} of the decoder must be {wanted}, for "
            f"{', '.join(PARAMETER_NAMES)}, and weights.regression={loss.weights.regression} "
            "positive, or both must be 0"
        )
    if bool(loss.weights.iou) != net.decoder.iou_head:
        raise ValueError(
            f"weights.iou={loss.weights.iou} and iou_head={net.decoder.iou_head} of the decoder go "
            "together"
        )


CONFIG = "tracking.yaml"
LINKS = {"data.features": "model.features", "data.selection.min_hits": "model.min_hits"}


def main(args: list[str] | None = None) -> None:
    """Run the tracking from the command line."""
    run(Tracking, TrackMLData, config=CONFIG, links=LINKS, args=args)


if __name__ == "__main__":
    run_script(__file__)
