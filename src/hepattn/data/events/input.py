"""From events of a source to what a network reads."""

# J events, P slots in the file, S slots of a batch, N slots of all kinds, F columns

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from hepattn.data.chunks import chunk_ranges
from hepattn.data.error import DataError
from hepattn.data.events.batch import EventBatch, take
from hepattn.data.events.labels import Labels, Selection
from hepattn.data.events.momentum import DERIVED, Momentum
from hepattn.data.events.slots import Slots
from hepattn.data.events.source import Columns, EventSource
from hepattn.data.events.split import EventPart
from hepattn.data.events.table import EventTable
from hepattn.data.events.write import EVENTS, UNLABELLED
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import Feature

logger = logging.getLogger(__name__)

CHUNK_SIZE = 10_000


@dataclass(frozen=True)
class EventInput:
    """What a network reads of each event.

    The objects of a kind whose momentum is known come by falling pt, the others in the order of
    the file; of more than ``max_objects`` the first ones stay. Columns of objects that a file
    lacks, among energy, px, py, pz, pt, eta, phi and mass, are made of the momentum, in GeV.

    Args:
        schema: Columns of events and objects, and how many objects are kept.
        momentum: Columns with the momentum of each kind of ``schema.with_vectors``.
        labels: Classes, and the column of the process.
        weight: Column of the events with their weights; null where all weigh 1.
        selection: Which events to use.
        auxiliary: Columns of the events that losses and plots want.

    Raises:
        ValueError: If the kinds with momentum differ from those of the schema, or a kind has no
            slots or the name of something else.
    """

    schema: EventSchema
    momentum: Mapping[str, Momentum] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    weight: str | None = "weight"
    selection: Selection = field(default_factory=Selection)
    auxiliary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if set(self.momentum) != set(self.schema.with_vectors):
            raise ValueError(
                f"momentum of {sorted(self.momentum)} must be of the kinds with four-vectors "
                f"{sorted(self.schema.with_vectors)}"
            )
        if EVENTS in self.schema.objects:
            raise ValueError(f"no kind of object may be called {EVENTS}; choose another name")
        for kind, number in self.schema.max_objects.items():
            if number < 1:
                raise ValueError(f"max_objects of {kind}={number} must be at least 1")

    def columns(
        self, source: EventSource, part: EventPart | None = None, labelled: bool = True
    ) -> Columns:
        """Columns to read of a source.

        Args:
            source: The events.
            part: The events to keep.
            labelled: Whether labels are needed.

        Raises:
            DataError: If the source lacks one.
        """
        events = _stored(self.schema.events, source.columns.events)
        events |= {*self.auxiliary, *self.selection.columns}
        if self.labels.column is None and labelled:
            raise DataError.of(
                source.name, "labels.column", found="none", expected="a column with the process"
            )
        # Events to predict may lack labels and weights.
        for name in {self.labels.column, self.weight} - {None}:
            if labelled or name in source.columns.events:
                events.add(name)
        if part is not None:
            events |= part.columns
        objects = {}
        for kind, features in self.schema.objects.items():
            there = source.columns.objects.get(kind, frozenset())
            made = set(DERIVED) if kind in self.momentum else set()
            names = _stored(features, there | made)
            momentum = self.momentum[kind].columns if kind in self.momentum else frozenset()
            objects[kind] = frozenset(names - (made - there)) | momentum
        columns = Columns(frozenset(events), objects)
        self._require(source, columns, part)
        return columns

    def _require(self, source: EventSource, columns: Columns, part: EventPart | None) -> None:
        remedies = {self.weight: "set the column of the weights to null"}
        remedies |= {self.labels.column: "name the column of the process in labels.column"}
        if part is not None:
            remedies[part.split.column] = "set split.column to null to divide events by their row"
        missing = sorted(columns.events - source.columns.events)
        for name in missing:
            if name in remedies:
                raise DataError.of(
                    source.name,
                    "columns of events",
                    found=f"no {name}",
                    expected=f"columns among {', '.join(sorted(source.columns.events))}",
                    remedy=remedies[name],
                )
        source.require(columns)

    def batch(self, source: EventSource) -> EventBatch:
        """Read all events of a source that fit into a batch, in order, to score them.

        None is left out and only the columns of the network are read.

        Args:
            source: The events.

        Raises:
            DataError: If they cannot be read, lack a column or contradict themselves.
        """
        plain = replace(self, selection=Selection(), auxiliary=())
        return plain.read(source, 0, source.num_events, labelled=False)

    def read(
        self,
        source: EventSource,
        start: int,
        stop: int,
        part: EventPart | None = None,
        labelled: bool = True,
    ) -> EventBatch:
        """Read the selected events among some rows; those of no class have the label -1.

        Events to predict may be of any process, also where the classes are unknown.

        Args:
            source: The events.
            start: First row.
            stop: Row after the last.
            part: The events to keep; null for all.
            labelled: Whether the source must have labels and weights.

        Raises:
            DataError: If they cannot be read or contradict themselves.
        """
        table = source.read(start, stop, self.columns(source, part, labelled))
        keep = np.full(stop - start, True) & self.selection.holds(table.events)  # (J)
        if part is not None:
            keep &= part.holds(table.events, table.index)
        label = np.full(stop - start, UNLABELLED)
        if self.labels.column in table.events:
            process = table.events[self.labels.column]
            if labelled:
                label = self.labels.decode(process, source.classes, source.name)
            else:
                label = self.labels.decode_known(process, source.classes)
        slots = Slots(source.name, table.index)
        all_real = np.full(stop - start, True)
        valid, vectors, columns = [], [], []  # of each kind
        for kind, features in self.schema.objects.items():
            own = slots.arrange(
                kind,
                table.objects[kind],
                features,
                self.momentum.get(kind),
                self.schema.max_objects[kind],
            )
            for parts, x in zip((valid, vectors, columns), own, strict=True):
                parts.append(x)
        auxiliary = [Feature(name) for name in self.auxiliary]
        batch = EventBatch(
            events=slots.stack(self.schema.events, table.events, all_real),
            vectors=torch.cat([torch.zeros(stop - start, 0, 4), *vectors], 1),
            valid=torch.cat([torch.zeros(stop - start, 0, dtype=torch.bool), *valid], 1),
            objects=tuple(columns),
            label=torch.from_numpy(label),
            weight=self._weight(table, slots),
            auxiliary=slots.stack(auxiliary, table.events, all_real),
            index=torch.from_numpy(table.index),
        )
        return batch if keep.all() else take(batch, torch.from_numpy(np.flatnonzero(keep)))

    def chunks(
        self,
        source: EventSource,
        part: EventPart | None = None,
        labelled: bool = True,
        chunk_size: int = CHUNK_SIZE,
    ) -> Iterator[EventBatch]:
        """Read the selected events piece by piece, in order.

        Args:
            source: The events.
            part: The events to keep; null for all.
            labelled: Whether to leave out events of no class.
            chunk_size: Rows read at once.

        Raises:
            DataError: If they cannot be read or contradict themselves.
        """
        num_dropped = 0
        for start, stop in chunk_ranges(source.block_ends, chunk_size):
            batch = self.read(source, start, stop, part, labelled)
            known = batch.label >= 0
            if labelled and not known.all():
                num_dropped += int((~known).sum())
                batch = take(batch, known.nonzero()[:, 0])
            yield batch
        if num_dropped:
            logger.warning("%s: left out %d events of no class", source.name, num_dropped)

    def _weight(self, table: EventTable, slots: Slots) -> Tensor:
        real = np.full(len(table.index), True)
        if self.weight not in table.events:
            return torch.ones(len(real))
        return slots.stack([Feature(self.weight)], table.events, real)[:, 0]


def _stored(features: Sequence[Feature], there: Iterable[str]) -> set[str]:
    """Columns to read; one that is missing may be left out where the feature says what it is."""
    return {feature.name for feature in features if feature.missing is None} | (
        {feature.name for feature in features} & set(there)
    )
