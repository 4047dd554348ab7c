"""Hit filtering: keep the hits of particles that are worth reconstructing.

Run as ``python hit_filter.py fit --config hit_filter.yaml`` or ``hepattn trackml/hit_filter fit``.
"""

# B events, N hits, F features

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.utilities import dim_zero_cat

from hepattn.data.error import DataError
from hepattn.data.trackml import PARTICLE_COLUMNS, HitBatch
from hepattn.experiments.trackml import plots
from hepattn.experiments.trackml.data import TrackMLData
from hepattn.metrics.hit_filter import FilterFigures, HitFilterMetrics
from hepattn.models.doublet_classifier import DoubletClassifier, DoubletScores
from hepattn.nn.normalise import Feature
from hepattn.ops.distributed import weighted_mean
from hepattn.ops.sort import invert, sort_order
from hepattn.training.cli import run, run_script
from hepattn.training.figures import save_figure
from hepattn.training.module import BaseModule, ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable
from hepattn.training.report import format_efficiency, write_figures

FIXED_EFFICIENCIES = (0.98, 0.99, 0.995)
MIRRORED = ("z", "eta", "geta")
"""Features that a mirror at z = 0 gives the other sign."""


class Sampled(NamedTuple):
    """What a training step looks at of some events.

    Attributes:
        scores: What the network makes of drawn hits, each by itself.
        weight: How many hits each of them stands for (B, N).
        logit: Logits of the hits of a sector after they exchanged messages (B, N).
        inner: True for those of them whose neighbours are in the sector, too (B, N).
    """

    scores: DoubletScores
    weight: Tensor
    logit: Tensor
    inner: Tensor


class HitFilter(BaseModule):
    """A network that scores each hit, and the threshold above which hits are kept.

    The threshold is chosen at each validation for the wanted efficiency and is part of the
    checkpoint.

    Args:
        features: Columns of the input; the data decides them.
        net: Builds the network from the feature list.
        loss: Called with logits, labels and valid, each (B, N).
        optimizer: Builds the optimiser from the parameter groups.
        schedule: Builds the learning rate schedule; a constant rate by default.
        compile: Whether to compile the network.
        hit_efficiency: Share of signal hits that the chosen threshold keeps.
        threshold: A fixed threshold instead, in (0, 1).
        min_hits: Hits that a particle has to keep; the data's selection decides it.
        background_share: Share of the other hits that a training step looks at beside all signal
            hits, anew at random, where each counts for those it stands for; for a
            `DoubletClassifier`, whose cost grows with them.
        sector: Share of the event, a range in φ at a random place, whose hits exchange messages in
            a training step; the messages alone learn from it. For a `DoubletClassifier`, with a
            ``background_share`` or a ``doublet_weight``.
        doublet_weight: Weight of two more losses, of the candidates and of the doublets that
            attend: are the two hits of one particle? For a `DoubletClassifier`.
        mirror: Whether training mirrors every other event, at random, at z = 0, where the detector
            looks the same.

    Raises:
        ValueError: If a number is out of range, or an option is for another network.
    """

    # A training that looks at a share of the hits minimises another loss than that of all hits.
    monitor = ("val/auc", "max")
    threshold: Tensor
    signs: Tensor

    def __init__(
        self,
        features: tuple[Feature, ...],
        net: Callable[[Sequence[Feature]], nn.Module],
        loss: nn.Module,
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool = False,
        hit_efficiency: float = 0.99,
        threshold: float | None = None,
        min_hits: int = 3,
        background_share: float = 1.0,
        sector: float = 0.1,
        doublet_weight: float = 0.0,
        mirror: bool = False,
    ) -> None:
        super().__init__(net(features), optimizer, schedule, compile)
        if not 0 < hit_efficiency <= 1:
            raise ValueError(f"hit_efficiency={hit_efficiency} must be in (0, 1]")
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(f"threshold={threshold} must be in (0, 1)")
        for name, share in (("background_share", background_share), ("sector", sector)):
            if not 0 < share <= 1:
                raise ValueError(f"{name}={share} must be in (0, 1]")
        if doublet_weight < 0:
            raise ValueError(f"doublet_weight={doublet_weight} must not be negative")
        self.samples = background_share < 1 or doublet_weight > 0
        if self.samples and not isinstance(self.net, DoubletClassifier):
            raise ValueError(
                f"background_share={background_share} and doublet_weight={doublet_weight} are for "
                f"a DoubletClassifier, not a {type(self.net).__name__}; leave them out"
            )
        self.background_share = background_share
        self.sector = sector
        self.doublet_weight = doublet_weight
        self.names = [feature.name for feature in features]
        if mirror and "theta" in self.names:
            raise ValueError("mirror=True gives z and eta the other sign: use eta, not theta")
        signs = [-1.0 if mirror and name in MIRRORED else 1.0 for name in self.names]
        self.register_buffer("signs", torch.tensor(signs), persistent=False)
        self.loss = loss
        self.hit_efficiency = hit_efficiency
        self.fixed_threshold = threshold
        start = 0.5 if threshold is None else threshold
        self.register_buffer("threshold", torch.tensor(start, dtype=torch.float64))
        stages = ("val", "test")
        self.collected = nn.ModuleDict({stage: HitFilterMetrics(min_hits) for stage in stages})
        self.display: HitBatch | None = None

    def setup(self, stage: str) -> None:
        """Refuse filtered hits, of which no figure would be that of a filter.

        Raises:
            DataError: If the data reads only the hits that a filter keeps.
        """
        if self.trainer.datamodule.hit_scores is not None:
            raise DataError("data.hit_scores is for tracking; a hit filter reads all hits")

    @property
    def cut(self) -> float:
        """The score from which hits are kept: a configured threshold, else the checkpoint's."""
        return float(self.threshold) if self.fixed_threshold is None else self.fixed_threshold

    def forward(self, batch: HitBatch) -> Tensor | Sampled:
        """Score the hits: logits (B, N), or in training what a step looks at of them."""
        if self.training:
            batch = self._mirrored(batch)
        if not (self.training and self.samples):
            return self.net(*self.network_inputs(batch))
        drawn = torch.rand(batch.valid.shape, device=batch.valid.device) < self.background_share
        chosen = (batch.label | drawn) & batch.valid
        weight = torch.where(batch.label, 1.0, 1 / self.background_share) * chosen
        scores = self.net.score(batch.hits, batch.valid, chosen)
        sector, inner = self._draw_sector(batch)
        with torch.no_grad():
            fixed = self.net.score(batch.hits, batch.valid, sector)
        return Sampled(scores, weight, self.net.exchange(fixed), inner)

    def _draw_sector(self, batch: HitBatch) -> tuple[Tensor, Tensor]:
        """Draw a range in φ; which hits are in it and which of them not near its ends, (B, N)."""
        phi = batch.hits[..., self.names.index("phi")]
        count = batch.valid.sum(1, keepdim=True)  # (B, 1)
        size = (self.sector * count).ceil().long()
        start = (torch.rand(count.shape, device=count.device) * count).long()
        place = (invert(sort_order(phi, batch.valid)) - start).remainder(count.clamp(min=1))
        margin = torch.where(size < count, size // 8, 0)
        inner = (place >= margin) & (place < size - margin) & batch.valid
        return (place < size) & batch.valid, inner

    def _mirrored(self, batch: HitBatch) -> HitBatch:
        flip = torch.rand(len(batch.hits), 1, 1, device=batch.hits.device) < 0.5
        return batch._replace(hits=torch.where(flip, batch.hits * self.signs, batch.hits))

    def network_inputs(self, batch: HitBatch) -> tuple[Tensor, Tensor]:
        """Raw hit columns (B, N, F) and which are real (B, N)."""
        return batch.hits, batch.valid

    def losses(self, batch: HitBatch, outputs: Tensor | Sampled) -> dict[str, Tensor]:
        """Are the hits signal, and in training: are the hits of a doublet of one particle?"""
        if isinstance(outputs, Tensor):
            return {"hit": self.loss(outputs, batch.label, batch.valid)}
        scores = outputs.scores
        losses = {
            "hit": self.loss(outputs.logit, batch.label, outputs.inner),
            "hit_alone": self.loss(scores.hit, batch.label, outputs.weight),
        }
        if self.doublet_weight:
            owner = batch.particle_id.gather(1, scores.anchor).unsqueeze(-1)  # (B, M, 1)
            partner = batch.particle_id.gather(1, scores.partner.flatten(1))
            same = (partner.view_as(scores.partner) == owner) & (owner != 0)  # (B, M, C)
            losses["screen"] = self.doublet_weight * _mean_loss(scores.screen, same, scores.valid)
            same, valid = (part.gather(2, scores.attended) for part in (same, scores.valid))
            losses["doublet"] = self.doublet_weight * _mean_loss(scores.doublet, same, valid)
        return losses

    def update_metrics(self, stage: str, batch: HitBatch, outputs: Tensor) -> None:
        """Collect the scores of validation and test events."""
        if stage not in self.collected:
            return
        self.collected[stage].update(
            outputs.float().sigmoid(),
            batch.label,
            batch.valid,
            batch.particle_index,
            batch.particles,
            batch.particle_valid,
            batch.event,
        )
        if stage == "test" and self.display is None:
            self.display = HitBatch(*(field[:1] for field in batch))

    def log_metrics(self, stage: str) -> None:
        """Choose the threshold after a validation; write and print the figures of a test."""
        if stage not in self.collected:
            return
        collected = self.collected[stage]
        with collected.sync_context():
            if stage == "val" and self.fixed_threshold is None and collected.has_signal():
                self.threshold.fill_(collected.threshold_for(self.hit_efficiency))
            figures = collected.figures(self.cut)
            summary = figures.scalars() | {"auc": float(collected.auc())}
            for fixed in FIXED_EFFICIENCIES if collected.has_signal() else ():
                at_fixed = collected.figures(collected.threshold_for(fixed))
                summary[f"hit_purity_at_{fixed}"] = at_fixed.hit_purity.value
                summary[f"particles_retained_at_{fixed}"] = at_fixed.particles_retained.value
            if stage == "test" and not self.trainer.fast_dev_run:
                self._write_evaluation(figures, summary)
                self.display = None
        collected.reset()
        values = {f"{stage}/{name}": value for name, value in summary.items()}
        self.log_dict(values, sync_dist=True)

    def predictions(self, batch: HitBatch, outputs: Tensor) -> dict[str, Tensor]:
        """One row a hit: its event, its id, its score and whether the filter keeps it."""
        score = outputs.float().sigmoid()[batch.valid]  # (hits of all events)
        return {
            "event": batch.event.unsqueeze(1).expand_as(batch.valid)[batch.valid],
            "hit_id": batch.hit_id[batch.valid],
            "score": score,
            "keep": score >= self.cut,
        }

    @rank_zero_only
    def _write_evaluation(self, figures: FilterFigures, summary: dict[str, float]) -> None:
        folder = self.evaluation_folder
        write_figures(folder, {"figures": figures, "summary": summary})
        self._draw(folder, figures.threshold)
        print_figures(figures, summary)
        print(f"figures and plots written to {folder}")

    def _draw(self, folder: Path, threshold: float) -> None:
        collected = self.collected["test"]
        score, label = (values.cpu().numpy() for values in collected.scores())
        save_figure(plots.plot_scores(score, label, threshold), folder / "scores.png")
        save_figure(plots.plot_scan(score, label, threshold), folder / "threshold_scan.png")
        retained = collected.retained(threshold).cpu().numpy()
        table = dim_zero_cat(collected.particles).cpu().numpy()
        pt, eta = (table[:, PARTICLE_COLUMNS.index(name)] for name in ("pt", "eta"))
        save_figure(plots.plot_retained(retained, pt, eta), folder / "particles_retained.png")
        if {"x", "y", "z"} <= set(self.names):
            hits, valid = self.display.hits[0], self.display.valid[0]
            columns = [self.names.index(name) for name in "xyz"]
            position = hits[valid][:, columns].cpu().numpy()
            kept = (self(self.display)[0].sigmoid() >= threshold)[valid].cpu().numpy()
            labels = self.display.label[0][valid].cpu().numpy()
            save_figure(plots.plot_event(position, labels, kept), folder / "event.png")


def _mean_loss(logits: Tensor, label: Tensor, valid: Tensor) -> Tensor:
    """Mean cross-entropy of real doublets, zero where there are none."""
    logits, label = logits[valid].float(), label[valid].float()
    loss = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
    return weighted_mean(loss)


def print_figures(figures: FilterFigures, summary: dict[str, float]) -> None:
    """Print the figures of a test as a table, with their 68.3 % intervals."""
    table = Table(title=f"hit filter at threshold {figures.threshold:.4f}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name in ("hit_efficiency", "hit_purity", "particles_retained"):
        table.add_row(name.replace("_", " "), format_efficiency(getattr(figures, name)))
    for name in summary:
        if name == "auc" or "_at_" in name:
            table.add_row(name.replace("_", " "), f"{summary[name]:.4f}")
    table.add_row("hits before / after", f"{figures.num_hits} / {figures.num_kept}")
    Console().print(table)


CONFIG = "hit_filter.yaml"
LINKS = {"data.features": "model.features", "data.selection.min_hits": "model.min_hits"}


def main(args: list[str] | None = None) -> None:
    """Run the hit filter from the command line."""
    run(HitFilter, TrackMLData, config=CONFIG, links=LINKS, args=args)


if __name__ == "__main__":
    run_script(__file__)
