"""Events of the liquid-xenon detector as batches: from a path, or simulated where none is given."""

import hashlib
import json
from dataclasses import asdict
from functools import cached_property

import numpy as np
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from hepattn.data.batching import RowSampler
from hepattn.data.epoch_loader import EpochLoader
from hepattn.data.error import DataError
from hepattn.data.events import EventPart, EventSplit
from hepattn.data.events.split import Part
from hepattn.data.xec import (
    StreamingLoader,
    StreamingXec,
    XecBatch,
    XecDataset,
    XecSource,
    collate,
    open_xec,
)
from hepattn.experiments.xec.weighting import Weighting
from hepattn.ops.distributed import num_processes
from hepattn.simulate.shards import available_cpus
from hepattn.simulate.xec import VERSION, XecConfig, simulate_xec
from hepattn.training.cache import cache_folder

Loader = EpochLoader[XecBatch] | StreamingLoader


class XecData(LightningDataModule):
    """Batches of events.

    Args:
        path: File, folder, pattern or list of ROOT files; null simulates events, once, into a cache
            (``HEPATTN_CACHE``, by default in the user's cache folder).
        predict_path: Events to predict, with or without the truth; null predicts those of ``path``.
        tree: Name of the tree.
        min_photons: Photons from which on a sensor's time is used.
        split: Shares of the events for training, validation and test. Run and event number decide,
            or with the column ``run`` the run alone.
        weighting: Weights of the training events, to make a distribution flat; null for none.
        simulation: Options of the simulation.
        num_simulated: How many events to simulate where there is no path.
        seed: Seed of the order of the training events.
        batch_size: Events in a batch.
        num_workers: Processes that load events beside the training.
        in_memory: Whether the events fit into memory, 50 kB each; else they are read again each
            epoch.
        buffer_size: Events that are shuffled together where they are not in memory.

    Raises:
        DataError: If an option is out of range.
    """

    def __init__(
        self,
        path: str | list[str] | None = None,
        predict_path: str | list[str] | None = None,
        tree: str = "tree",
        min_photons: float = 100.0,
        split: EventSplit = EventSplit(0.8, 0.1, 0.1, 0.0),  # noqa: B008 frozen
        weighting: Weighting | None = None,
        simulation: XecConfig = XecConfig(),  # noqa: B008 frozen
        num_simulated: int = 4000,
        seed: int = 0,
        batch_size: int = 32,
        num_workers: int = 0,
        in_memory: bool = True,
        buffer_size: int = 2000,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("num_simulated", num_simulated, 1),
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("buffer_size", buffer_size, batch_size),
        ):
            if value < least:
                raise DataError(f"data.{name}={value} must be at least {least}")
        if weighting is not None and not in_memory:
            raise DataError("data.weighting needs data.in_memory=true")
        self.path = path
        self.predict_path = predict_path
        self.reading = {"tree": tree, "min_photons": min_photons}
        self.parts = split
        self.weighting = weighting
        self.simulation = simulation
        self.num_simulated = num_simulated
        self.seed = seed
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.in_memory = in_memory
        self.buffer_size = buffer_size
        self._datasets: dict[Part, XecDataset] = {}

    def prepare_data(self) -> None:
        """Simulate the events that the cache lacks."""
        if self.path is None:
            simulate_into_cache(self.simulation, self.num_simulated)

    @cached_property
    def source(self) -> XecSource:
        """The events of ``path``, opened at the first use."""
        if self.path is None:
            folder = cache_folder("xec", VERSION, self.simulation)
            return open_xec(folder, **self.reading, num_events=self.num_simulated)
        return open_xec(self.path, **self.reading)

    def split(self) -> EventSplit:
        """Which events are for training, validation and test."""
        return self.parts

    def fingerprint(self) -> str:
        """Short hash of the events and their split, to record what a run was trained on."""
        simulated = [VERSION, asdict(self.simulation), self.num_simulated]
        source = simulated if self.path is None else self.source.fingerprint()
        parts = [source, str(self.parts), self.reading]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def train_dataloader(self) -> Loader:
        """Training events, in another order each epoch."""
        if not self.in_memory:
            return self._stream(self.source, EventPart(self.parts, "train"), shuffle=True)
        events = self.dataset("train")
        if self.weighting is not None:
            events.events = self.weighting.weigh(events.events)
        size = self.batch_size * num_processes()
        return self._loader(events, RowSampler(len(events), size, shuffle=True, seed=self.seed))

    def val_dataloader(self) -> Loader:
        """Validation events, mixed: a limited validation would else see the first files alone."""
        if not self.in_memory:
            return self._stream(self.source, EventPart(self.parts, "val"), shuffle=True)
        events = self.dataset("val")
        order = np.random.default_rng(self.seed).permutation(len(events))
        return self._loader(events, RowSampler(order, self.batch_size * num_processes()))

    def test_dataloader(self) -> Loader:
        """Test events."""
        if not self.in_memory:
            return self._stream(self.source, EventPart(self.parts, "test"), is_training=False)
        return self._loader(self.dataset("test"))

    def predict_dataloader(self) -> Loader:
        """All events of ``predict_path`` or ``path``, in order, with or without the truth."""
        own = self.predict_path
        source = self.source if own is None else open_xec(own, **self.reading)
        if self.in_memory:
            return self._loader(XecDataset(source))
        return self._stream(source, None, is_training=False)

    def dataset(self, name: Part) -> XecDataset:
        """Return the events of a part in memory, read at the first use."""
        if name not in self._datasets:
            self._datasets[name] = XecDataset(self.source, EventPart(self.parts, name))
        return self._datasets[name]

    def _stream(
        self,
        source: XecSource,
        part: EventPart | None,
        shuffle: bool = False,
        is_training: bool = True,
    ) -> Loader:
        stream = StreamingXec(
            source,
            self.batch_size,
            part,
            shuffle=shuffle,
            seed=self.seed,
            buffer_size=self.buffer_size,
            is_filled=is_training,
        )
        return StreamingLoader(stream, self.num_workers)

    def _loader(self, events: XecDataset, batches: RowSampler | None = None) -> Loader:
        """Load events in training and validation batches, or in order for an evaluation."""
        in_order = RowSampler(len(events), self.batch_size * num_processes())
        return EpochLoader(
            events, batches or in_order, collate, self.num_workers, is_filled=batches is not None
        )


def simulate_into_cache(simulation: XecConfig, num_events: int) -> None:
    """Simulate the events of these options that the cache lacks.

    Raises:
        DataError: If the cache can't be written.
    """
    folder = cache_folder("xec", VERSION, simulation)
    rank_zero_info(f"data.path is null: {num_events} simulated events from {folder}")
    try:
        simulate_xec(folder, num_events, simulation, num_workers=available_cpus())
    except (OSError, RuntimeError) as error:
        raise DataError(f"events can't be simulated into {folder}: {error}") from error
