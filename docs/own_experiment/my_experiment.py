"""The momentum of a charged particle, from its hits in a magnetic field.

Run as ``python my_experiment.py fit --config my_experiment.yaml``.
"""

# B tracks, N hits, F features, D hidden features

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torchmetrics import MeanAbsoluteError
from torchmetrics.classification import BinaryAccuracy

from hepattn.data.batching import RowSampler
from hepattn.data.epoch_loader import EpochLoader
from hepattn.data.error import DataError
from hepattn.data.split import Split, split_events
from hepattn.nn.dense import Dense
from hepattn.nn.embedding import TokenEmbedding
from hepattn.nn.encoder import Encoder
from hepattn.nn.normalise import Feature
from hepattn.nn.pooling import masked_mean
from hepattn.ops.distributed import num_processes, weighted_mean
from hepattn.physics.helix import arcs_to_cylinder, make_helix, position
from hepattn.training.cli import run, run_script
from hepattn.training.module import BaseModule, ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable
from hepattn.training.report import write_figures

RADII = np.linspace(100.0, 1000.0, 10)
"""Radii of the detector's layers in mm."""

# --- data: from a simulation, or from your files, to batches ---


class Track(NamedTuple):
    """One track: columns of its hits (N, F), q/pT in 1/GeV, and its number."""

    hits: Tensor
    curvature: float
    event: int


class TrackBatch(NamedTuple):
    """Tracks, padded to one length.

    Attributes:
        hits: Raw columns of the hits (B, N, F).
        valid: True for real hits, which come first (B, N).
        curvature: Charge over transverse momentum in 1/GeV (B,).
        weight: Weight of the track in the loss (B,); 0 for what only fills up a batch.
        event: Number of the track (B,).
    """

    hits: Tensor
    valid: Tensor
    curvature: Tensor
    weight: Tensor
    event: Tensor


def collate(tracks: Sequence[Track]) -> TrackBatch:
    """Pad tracks to the longest one.

    Args:
        tracks: Tracks of any lengths.
    """
    lengths = torch.tensor([len(track.hits) for track in tracks])
    hits = pad_sequence([track.hits for track in tracks], batch_first=True)  # (B, N, F)
    return TrackBatch(
        hits=hits,
        valid=torch.arange(hits.shape[1]) < lengths.unsqueeze(1),  # (B, N)
        curvature=torch.tensor([track.curvature for track in tracks]),
        weight=torch.ones(len(tracks)),
        event=torch.tensor([track.event for track in tracks]),
    )


def simulate_track(
    rng: np.random.Generator, field: float, num_noise: int
) -> tuple[dict[str, np.ndarray], float]:
    """Follow a particle from the origin through layers that see nine in ten.

    Args:
        rng: Random numbers.
        field: Magnetic field along z in tesla.
        num_noise: Hits of nothing, spread over the layers.

    Returns:
        Columns x, y, r (mm) and phi (radians) of the hits (N,), and q/pT in 1/GeV.
    """
    pt, charge, phi = rng.uniform(1.0, 10.0), rng.choice([-1.0, 1.0]), rng.uniform(-0.2, 0.2)
    momentum = pt * np.array([[np.cos(phi), np.sin(phi), 0.0]])
    helix = make_helix(np.zeros((1, 3)), momentum, np.array([charge]), field)
    arcs = arcs_to_cylinder(helix, RADII).min(-1)[0]  # (R,), the first crossing
    seen = rng.random(len(RADII)) < 0.9
    points = np.concatenate([position(helix, arc) for arc in arcs[seen]] or [np.zeros((0, 3))])
    noise_r, noise_phi = rng.choice(RADII, num_noise), rng.uniform(-0.4, 0.4, num_noise)
    x = np.concatenate([points[:, 0], noise_r * np.cos(noise_phi)])
    y = np.concatenate([points[:, 1], noise_r * np.sin(noise_phi)])
    columns = {"x": x, "y": y, "r": np.hypot(x, y), "phi": np.arctan2(y, x)}
    return columns, charge / pt


class TrackData(LightningDataModule):
    """Batches of simulated tracks.

    Args:
        features: Columns of the network's input, in order.
        num_tracks: How many tracks to simulate.
        field: Magnetic field in tesla.
        num_noise: Hits of nothing beside each track.
        batch_size: Tracks in a batch.
        seed: Seed of the simulation, of the split and of the order of the training tracks.

    Raises:
        DataError: If there is no such column.
    """

    def __init__(
        self,
        features: tuple[Feature, ...],
        num_tracks: int = 10_000,
        field: float = 2.0,
        num_noise: int = 2,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        known = {"x", "y", "r", "phi"}
        if unknown := {feature.name for feature in features} - known:
            raise DataError(f"data.features: {unknown} must be among {known}")
        self.features = features
        self.num_tracks = num_tracks
        self.field = field
        self.num_noise = num_noise
        self.batch_size = batch_size
        self.seed = seed

    @cached_property
    def tracks(self) -> list[Track]:
        """All tracks, simulated at the first use; read your files here."""
        tracks = []
        for event in range(self.num_tracks):
            rng = np.random.default_rng([self.seed, event])
            columns, curvature = simulate_track(rng, self.field, self.num_noise)
            hits = np.stack([columns[feature.name] for feature in self.features], -1)  # (N, F)
            tracks.append(Track(torch.tensor(hits, dtype=torch.float32), curvature, event))
        return tracks

    def split(self) -> Split:
        """Which tracks are for training, validation and test; goes into ``split.json``."""
        return split_events([str(i) for i in range(self.num_tracks)], seed=self.seed)

    def fingerprint(self) -> str:
        """What the data is; goes into ``environment.json``."""
        return f"{self.num_tracks} tracks, seed {self.seed}, {self.field} T, {self.num_noise} noise"

    def train_dataloader(self) -> EpochLoader[TrackBatch]:
        """Training tracks, in another order each epoch."""
        return self._loader(self.split().train, shuffle=True)

    def val_dataloader(self) -> EpochLoader[TrackBatch]:
        """Validation tracks."""
        return self._loader(self.split().val)

    def test_dataloader(self) -> EpochLoader[TrackBatch]:
        """Test tracks, each once, also where several processes share them."""
        return self._loader(self.split().test, is_filled=False)

    def predict_dataloader(self) -> EpochLoader[TrackBatch]:
        """All tracks, in order."""
        return self._loader(range(self.num_tracks), is_filled=False)

    def _loader(
        self, events: Sequence[str] | range, shuffle: bool = False, is_filled: bool = True
    ) -> EpochLoader[TrackBatch]:
        rows = sorted(map(int, events))
        size = self.batch_size * num_processes()
        batches = RowSampler(rows, size, shuffle=shuffle, seed=self.seed)
        return EpochLoader(self.tracks, batches, collate, is_filled=is_filled)


# --- network: from the library's layers ---


class TrackNet(nn.Module):
    """Scale and embed the hits, let them attend to each other, average, read out a number.

    Args:
        features: Columns of the hits, in order.
        encoder: What lets the hits see each other.
    """

    def __init__(self, features: Sequence[Feature], encoder: Encoder) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(features, encoder.dim)  # its first layer is Normalise
        self.encoder = encoder
        self.head = Dense(encoder.dim, 1)

    def forward(self, hits: Tensor, valid: Tensor) -> Tensor:
        """Tell q/pT.

        Args:
            hits: Raw columns (B, N, F).
            valid: True for real hits (B, N).

        Returns:
            (B,) in 1/GeV.
        """
        hits = hits.masked_fill(~valid.unsqueeze(-1), 0.0)  # whatever padding holds
        x = self.encoder(self.embedding(hits, valid), valid)  # (B, N, D)
        return self.head(masked_mean(x, valid)).squeeze(-1)  # (B,)


# --- training: loss, metrics, predictions ---


class TrackRegressor(BaseModule):
    """Learn q/pT.

    Args:
        features: Columns of the input; the data decides them.
        net: Builds the network from the feature list.
        optimizer: Builds the optimiser from the parameter groups.
        schedule: Builds the learning rate schedule; a constant rate by default.
        compile: Whether to compile the network.
    """

    monitor = ("val/error", "min")  # which metric picks the best checkpoint

    def __init__(
        self,
        features: tuple[Feature, ...],
        net: Callable[[Sequence[Feature]], nn.Module],
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(net(features), optimizer, schedule, compile)
        stages = ("val", "test")
        self.error = nn.ModuleDict({stage: MeanAbsoluteError() for stage in stages})
        self.charge = nn.ModuleDict({stage: BinaryAccuracy() for stage in stages})

    def network_inputs(self, batch: TrackBatch) -> tuple[Tensor, ...]:
        """Tensors that the network takes; ``hepattn export`` and other tools ask for them."""
        return batch.hits, batch.valid

    def forward(self, batch: TrackBatch) -> Tensor:
        """Tell q/pT (B,)."""
        return self.net(*self.network_inputs(batch))

    def losses(self, batch: TrackBatch, outputs: Tensor) -> dict[str, Tensor]:
        """The one loss; it is logged as ``train/curvature`` and ``val/curvature``."""
        distance = F.smooth_l1_loss(outputs, batch.curvature, reduction="none", beta=0.1)  # (B,)
        return {"curvature": weighted_mean(distance, batch.weight)}

    def update_metrics(self, stage: str, batch: TrackBatch, outputs: Tensor) -> None:
        """Collect tracks of the validation and the test."""
        if stage in self.error:
            real = batch.weight > 0
            told, truth = outputs[real], batch.curvature[real]
            self.error[stage].update(told, truth)
            self.charge[stage].update((told > 0).int(), (truth > 0).int())

    def log_metrics(self, stage: str) -> None:
        """Log the mean error of q/pT and the share of right charges; write those of a test."""
        if stage not in self.error:
            return
        metrics = {"error": self.error[stage], "charge": self.charge[stage]}
        figures = {name: metric.compute() for name, metric in metrics.items()}
        self.log_dict({f"{stage}/{name}": value for name, value in figures.items()})
        for metric in metrics.values():
            metric.reset()
        if stage == "test" and self.trainer.is_global_zero and not self.trainer.fast_dev_run:
            write_figures(self.evaluation_folder, figures)

    def predictions(self, batch: TrackBatch, outputs: Tensor) -> dict[str, Tensor]:
        """One row a track of ``predictions.parquet``."""
        return {"event": batch.event, "curvature": batch.curvature, "predicted": outputs}


CONFIG = "my_experiment.yaml"
LINKS = {"data.features": "model.features"}


def main(args: list[str] | None = None) -> None:
    """Run the experiment from the command line."""
    run(TrackRegressor, TrackData, config=CONFIG, links=LINKS, args=args)


if __name__ == "__main__":
    run_script(__file__)
