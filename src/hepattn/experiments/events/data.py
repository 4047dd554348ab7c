"""Events as batches: real ones from a path, simulated ones where none is given."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from hepattn.data.batching import EpochBatches, RowSampler
from hepattn.data.epoch_loader import EpochLoader
from hepattn.data.error import DataError
from hepattn.data.events import (
    EventBatch,
    EventDataset,
    EventInput,
    EventPart,
    EventReader,
    EventSampler,
    EventSource,
    EventSplit,
    FirstEvents,
    Labels,
    Momentum,
    Selection,
    Statistics,
    StreamingEvents,
    StreamingLoader,
    Weighting,
    collate,
    open_events,
    require_every_class,
    summarise,
)
from hepattn.data.events.split import Part
from hepattn.nn.column_summary import ColumnSummary
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import Feature
from hepattn.ops.distributed import num_processes
from hepattn.simulate.events import VERSION, EventsConfig, simulate_events
from hepattn.simulate.shards import available_cpus
from hepattn.training.cache import cache_folder
from hepattn.training.shipped import read_shipped

Paths = str | list[str] | dict[str, str | list[str]]
Loader = EpochLoader[EventBatch] | StreamingLoader


@dataclass(frozen=True)
class Objects:
    """What a network reads of one kind of object.

    Args:
        features: Columns.
        max_objects: How many of an event are kept, those of largest pt where the momentum is known.
        momentum: Columns with the momentum; null for none, and then no pairwise features.
    """

    features: tuple[Feature, ...]
    max_objects: int
    momentum: Momentum | None = None


@dataclass(frozen=True)
class Inputs:
    """What a network reads of events.

    Args:
        events: Columns of the event as a whole.
        objects: Kinds of objects.
    """

    events: tuple[Feature, ...] = ()
    objects: dict[str, Objects] = field(default_factory=dict)


class EventData(LightningDataModule):
    """Batches of events.

    Args:
        inputs: Columns that the network reads: a name of those that ship with the experiment, the
            path of a YAML file, or the columns themselves.
        use: Whether the network gets the columns of the ``events``, the ``objects``, or ``both``.
        path: File, folder, pattern or list of files, or such for each process by its name; null
            simulates events, once, into a cache (``HEPATTN_CACHE``, by default in the user's cache
            folder).
        predict_path: Events to predict, with or without labels; null predicts those of ``path``.
        reader: Knows the format of the files; null for the project's HDF5.
        labels: Classes of the events, and where their process is stored.
        selection: Which events to use.
        weighting: Weights and balance of the classes in training.
        auxiliary: Columns of the events that losses and plots want and the network does not see.
        split: Shares of the events for training, validation, test and calibration.
        statistics: File of ``hepattn summarise-events`` with statistics of the columns; null
            computes them from the training events before a training.
        simulation: Options of the simulation.
        num_simulated: How many events to simulate where there is no path.
        seed: Seed of the order of the training events.
        batch_size: Events in a batch.
        num_workers: Processes that load events beside the training.
        in_memory: Whether the events fit into memory; else they are read again each epoch.
        buffer_size: Events that are shuffled together where they are not in memory.

    Raises:
        DataError: If an option is out of range.
    """

    def __init__(
        self,
        inputs: str | Inputs = "search",
        use: Literal["both", "events", "objects"] = "both",
        path: Paths | None = None,
        predict_path: Paths | None = None,
        reader: EventReader | None = None,
        labels: Labels = Labels(),  # noqa: B008 frozen
        selection: Selection = Selection(),  # noqa: B008 frozen
        weighting: Weighting = Weighting(),  # noqa: B008 frozen
        auxiliary: tuple[str, ...] = (),
        split: EventSplit = EventSplit(),  # noqa: B008 frozen
        statistics: str | None = None,
        simulation: EventsConfig = EventsConfig(),  # noqa: B008 frozen
        num_simulated: int = 20_000,
        seed: int = 0,
        batch_size: int = 256,
        num_workers: int = 0,
        in_memory: bool = True,
        buffer_size: int = 50_000,
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
        if taken := sorted({"event", "label", "weight"} & set(auxiliary)):
            raise DataError(f"data.auxiliary={taken}: predictions have columns of these names")
        if isinstance(inputs, str):
            inputs = read_shipped(inputs, Inputs, Path(__file__).parent / "inputs", "data.inputs")
        events = inputs.events if use != "objects" else ()
        objects = inputs.objects if use != "events" else {}
        momentum = {kind: o.momentum for kind, o in objects.items() if o.momentum is not None}
        self.schema = EventSchema(
            tuple(events),
            {kind: tuple(options.features) for kind, options in objects.items()},
            {kind: options.max_objects for kind, options in objects.items()},
            tuple(momentum),
        )
        self.input = EventInput(
            self.schema, momentum, labels, weighting.column, selection, tuple(auxiliary)
        )
        self.path = path
        self.predict_path = predict_path
        self.reader = reader
        self.labels = labels
        self.weighting = weighting
        self.auxiliary = tuple(auxiliary)
        self.parts = split
        self.statistics = statistics
        self.simulation = simulation
        self.num_simulated = num_simulated
        self.seed = seed
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.in_memory = in_memory
        self.buffer_size = buffer_size
        if weighting.resampling is not None and not in_memory:
            raise DataError("data.weighting.resampling needs data.in_memory=true")
        self._datasets: dict[Part, EventDataset] = {}

    @property
    def processes(self) -> tuple[tuple[int | str, ...], ...]:
        """Processes in each class, in the order of the labels."""
        groups = self.labels.classes or {name: [name] for name in self.classes}
        return tuple(tuple(group) for group in groups.values())

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        if self.labels.classes is not None:
            return tuple(self.labels.classes)
        if self.path is None:
            return self.labels.names(self.simulation.classes, "the simulation")
        return self.labels.names(self.source.classes, self.source.name)

    def prepare_data(self) -> None:
        """Simulate the events that the cache lacks."""
        if self.path is None:
            simulate_into_cache(self.simulation, self.num_simulated)

    @cached_property
    def source(self) -> EventSource:
        """The events of ``path``, opened at the first use."""
        if self.path is None:
            return FirstEvents(open_events(simulated_folder(self.simulation)), self.num_simulated)
        return open_events(self.path, self.reader)

    def split(self) -> EventSplit:
        """Which events are for training, validation, test and calibration."""
        return self.parts

    def fingerprint(self) -> str:
        """Short hash of the events and their split, to record what a run was trained on."""
        simulated = [VERSION, asdict(self.simulation), self.num_simulated]
        source = simulated if self.path is None else self.source.fingerprint()
        parts = [source, str(self.parts), str(self.input)]
        return sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def summaries(self) -> Mapping[str, ColumnSummary]:
        """Statistics of the columns over the training events."""
        if self.statistics is not None:
            return Statistics.load(self.statistics, self.schema).summaries
        return self.summarise().summaries

    def summarise(self) -> Statistics:
        """Compute statistics of the columns over the training events."""
        return summarise(self.training_events(), self.schema)

    def training_events(self) -> Iterable[EventBatch]:
        """Training events in the order of the source, all at once or, if they stream, in pieces."""
        if self.in_memory:
            return [self.dataset("train").batch]
        return self.input.chunks(self.source, self._part("train"))

    def _part(self, name: Part) -> EventPart:
        return EventPart(self.parts, name)

    def train_dataloader(self) -> Loader:
        """Training events, weighed, in another order each epoch."""
        if not self.in_memory:
            stream = self._stream("train", shuffle=True)
            require_every_class(stream.label, stream.classes)
            factors = self.weighting.fit(stream.label, stream.weight, stream.classes)
            return StreamingLoader(stream.weigh(self.weighting, factors), self.num_workers)
        events = self.dataset("train")
        require_every_class(events.label, events.classes)
        factors = self.weighting.fit(events.label, events.weight, events.classes)
        batches = EventSampler(
            events.label,
            events.classes,
            self.batch_size * num_processes(),
            self.weighting.resampling,
            self.seed,
        )
        return self._loader(events.weigh(self.weighting, factors), batches)

    def val_dataloader(self) -> Loader:
        """Validation events, mixed: a limited validation would else see the first files alone."""
        return self._part_loader("val", mix=True)

    def test_dataloader(self) -> Loader:
        """Test events."""
        return self._part_loader("test", is_training=False)

    def calib_dataloader(self) -> Loader:
        """Events for the calibration, which neither training nor test sees."""
        return self._part_loader("calib", is_training=False)

    def predict_dataloader(self) -> Loader:
        """All events of ``predict_path`` or ``path``, in order, with or without labels."""
        own = self.predict_path
        source = self.source if own is None else open_events(own, self.reader)
        if self.in_memory:
            events = EventDataset(source, self.input, labelled=False)
            return self._loader(events, is_training=False)
        stream = StreamingEvents(
            source, self.input, self.batch_size, labelled=False, shuffle=False, is_filled=False
        )
        return StreamingLoader(stream, self.num_workers)

    def dataset(self, name: Part) -> EventDataset:
        """Return the events of a part in memory, read at the first use."""
        if name not in self._datasets:
            self._datasets[name] = EventDataset(self.source, self.input, self._part(name))
        return self._datasets[name]

    def _part_loader(self, name: Part, mix: bool = False, is_training: bool = True) -> Loader:
        if not self.in_memory:
            return StreamingLoader(self._stream(name, mix, is_training), self.num_workers)
        events = self.dataset(name)
        if not mix:
            return self._loader(events, is_training=is_training)
        order = np.random.default_rng(self.seed).permutation(len(events))
        return self._loader(events, RowSampler(order, self.batch_size * num_processes()))

    def _stream(
        self, name: Part, shuffle: bool = False, is_training: bool = True
    ) -> StreamingEvents:
        return StreamingEvents(
            self.source,
            self.input,
            self.batch_size,
            self._part(name),
            shuffle=shuffle,
            seed=self.seed,
            buffer_size=self.buffer_size,
            is_filled=is_training,
        )

    def _loader(
        self, events: EventDataset, batches: EpochBatches | None = None, is_training: bool = True
    ) -> Loader:
        batches = batches or RowSampler(len(events), self.batch_size * num_processes())
        return EpochLoader(events, batches, collate, self.num_workers, is_filled=is_training)


def simulated_folder(simulation: EventsConfig) -> Path:
    """Where the simulated events of these options are kept."""
    return cache_folder(f"events-{simulation.kind}", VERSION, simulation)


def simulate_into_cache(simulation: EventsConfig, num_events: int) -> None:
    """Simulate the events of these options that the cache lacks.

    Raises:
        DataError: If the cache can't be written.
    """
    folder = simulated_folder(simulation)
    rank_zero_info(f"data.path is null: {num_events} simulated events from {folder}")
    try:
        simulate_events(folder, num_events, simulation, num_workers=available_cpus())
    except (OSError, RuntimeError) as error:
        raise DataError(f"events can't be simulated into {folder}: {error}") from error
