"""TrackML events as batches: real ones from a path, simulated ones where none is given."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from hepattn.data.batching import EpochBatches, LengthBucketSampler, RowSampler
from hepattn.data.epoch_loader import EpochLoader
from hepattn.data.error import DataError
from hepattn.data.split import Split, check_fractions, split_events
from hepattn.data.trackml import (
    EventSource,
    HitBatch,
    HitDataset,
    HitScores,
    KeptHits,
    ParticleSelection,
    collate,
    empty_last,
    open_events,
    prepare,
)
from hepattn.nn.normalise import Feature
from hepattn.ops.distributed import num_processes
from hepattn.simulate.shards import available_cpus
from hepattn.simulate.tracker import VERSION, TrackerConfig, simulate_events
from hepattn.training.cache import cache_folder


class TrackMLData(LightningDataModule):
    """Batches of TrackML events.

    Args:
        features: Columns of the network's input, in order.
        path: Folder or zip of TrackML CSV files, or a prepared store; null simulates events,
            once, into a cache (``HEPATTN_CACHE``, by default in the user's cache folder).
        simulation: Options of the simulation.
        num_simulated: How many events to simulate where there is no path.
        selection: Which hits are read and which particles are to be found.
        hit_scores: Scores of a hit filter, from its ``predict``: only the hits that it keeps are
            read, while the particles to be found stay the same; null reads all hits.
        split: Shares of the events for training, validation and test.
        seed: Seed of the split and of the order of the training events.
        batch_size: Events in a batch, in training of similar length.
        num_workers: Processes that read events beside the training.
        skip_bad: Whether to leave out events that can't be read, with a warning and a count.
        in_memory: Whether to keep every event of training and validation once it was read, for
            sets that fit; without workers, which would each keep their own.
    """

    def __init__(
        self,
        features: tuple[Feature, ...],
        path: str | None = None,
        simulation: TrackerConfig = TrackerConfig(),  # noqa: B008 frozen
        num_simulated: int = 400,
        selection: ParticleSelection = ParticleSelection(),  # noqa: B008 frozen
        hit_scores: HitScores | None = None,
        split: tuple[float, float, float] = (0.8, 0.1, 0.1),
        seed: int = 0,
        batch_size: int = 1,
        num_workers: int = 0,
        skip_bad: bool = False,
        in_memory: bool = False,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("num_simulated", num_simulated, 1),
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if value < least:
                raise DataError(f"data.{name}={value} must be at least {least}")
        if in_memory and num_workers:
            raise DataError(f"data.in_memory needs data.num_workers=0, not {num_workers}")
        check_fractions(split, "data.split")
        self.features = features
        self.path = None if path is None else Path(path)
        self.simulation = simulation
        self.num_simulated = num_simulated
        self.selection = selection
        self.hit_scores = hit_scores
        self.fractions = split
        self.seed = seed
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.skip_bad = skip_bad
        self.in_memory = in_memory
        self._source: EventSource | None = None
        self._kept_hits: KeptHits | None = None

    def prepare_data(self) -> None:
        """Simulate the events that the cache lacks."""
        if self.path is None:
            simulate_into_cache(self.simulation, self.num_simulated)

    @property
    def source(self) -> EventSource:
        """The events, opened at the first use."""
        if self._source is None:
            self._source = open_events(self.path or simulated_folder(self.simulation) / "store")
        return self._source

    @property
    def kept_hits(self) -> KeptHits | None:
        """What the hit filter keeps, read at the first use; None without scores."""
        if self._kept_hits is None and self.hit_scores is not None:
            self._kept_hits = KeptHits.load(self.hit_scores)
        return self._kept_hits

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the events that are used."""
        return self.source.names[: None if self.path else self.num_simulated]

    def split(self) -> Split:
        """Which events are for training, validation and test."""
        return split_events(self.names, self.fractions, self.seed)

    def fingerprint(self) -> str:
        """Short hash of the events, their split and what a filter keeps of them.

        It records what a run was trained on.
        """
        simulated = [VERSION, asdict(self.simulation)]
        source = simulated if self.path is None else self.source.fingerprint()
        parts = [source, asdict(self.split())]
        if self.kept_hits is not None:
            parts.append(self.kept_hits.fingerprint())
        text = json.dumps(parts)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def train_dataloader(self) -> EpochLoader[HitBatch]:
        """Training events, in another order each epoch."""
        return self._loader(self.split().train, shuffle=True, in_memory=self.in_memory)

    def val_dataloader(self) -> EpochLoader[HitBatch]:
        """Validation events."""
        return self._loader(self.split().val, in_memory=self.in_memory)

    def test_dataloader(self) -> EpochLoader[HitBatch]:
        """Test events."""
        return self._loader(self.split().test, is_training=False)

    def predict_dataloader(self) -> EpochLoader[HitBatch]:
        """All events, in order, with or without truth."""
        return self._loader(self.names, require_truth=False, is_training=False)

    def _loader(
        self,
        names: tuple[str, ...],
        shuffle: bool = False,
        require_truth: bool = True,
        in_memory: bool = False,
        is_training: bool = True,
    ) -> EpochLoader[HitBatch]:
        place = {name: index for index, name in enumerate(self.source.names)}
        dataset = HitDataset(
            self.source,
            sorted(place[name] for name in names),
            self.features,
            self.selection,
            require_truth=require_truth,
            skip_bad=self.skip_bad,
            in_memory=in_memory,
            kept_hits=self.kept_hits,
        )
        size = self.batch_size * num_processes()
        batches: EpochBatches = RowSampler(len(dataset), size)
        if shuffle:
            batches = LengthBucketSampler(dataset.lengths, size, seed=self.seed)
        return EpochLoader(
            dataset, batches, collate, self.num_workers, is_filled=is_training, fill=empty_last
        )


def simulated_folder(simulation: TrackerConfig) -> Path:
    """Where the simulated events of these options are kept."""
    return cache_folder(f"tracker-{simulation.num_particles}", VERSION, simulation)


def simulate_into_cache(simulation: TrackerConfig, num_events: int) -> None:
    """Simulate the first events of these options and prepare them, unless that was done.

    Raises:
        DataError: If the cache can't be written or the simulation lacks an extra.
    """
    folder = simulated_folder(simulation)
    try:
        if len(open_events(folder / "store")) >= num_events:
            rank_zero_info(f"data.path is null: simulated events from {folder}")
            return
    except DataError:
        pass  # no complete store yet
    rank_zero_info(
        f"data.path is null: simulating {num_events} events of {simulation.num_particles} "
        f"particles, once, into {folder}"
    )
    num_workers = max(1, min(available_cpus(), num_events // 100))  # starting one costs seconds
    try:
        simulate_events(folder / "raw", num_events, simulation, num_workers=num_workers)
        prepare(folder / "raw", folder / "store", num_workers=num_workers)
    except (OSError, ImportError) as error:
        raise DataError(f"events can't be simulated into {folder}: {error}") from error
