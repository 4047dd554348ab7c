"""Events that need not fit into memory."""

# B events of a batch, J events

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hepattn.data.epoch_loader import without_weight
from hepattn.data.events.batch import EventBatch, join, take
from hepattn.data.events.dataset import require_events
from hepattn.data.events.input import EventInput
from hepattn.data.events.source import EventSource
from hepattn.data.events.split import EventPart
from hepattn.data.events.weights import Weighting
from hepattn.data.events.write import LABEL
from hepattn.data.streaming import StreamingRows
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import Feature


class StreamingEvents(StreamingRows[EventBatch, EventBatch]):
    """Batches of events that are read while they are needed; see ``StreamingRows``.

    At the start, labels and weights of all events are read, once.

    Args:
        source: The events.
        inputs: What a network reads of them.
        batch_size: Number of events of a batch.
        part: The events to stream; null for all.
        labelled: Whether to leave out events of no class; else they have the label -1.
        shuffle: Whether each epoch has its own random order.
        seed: Seed of that order.
        chunk_size: Events read at once, where the file allows it whole stored blocks.
        buffer_size: Events that are shuffled together, in each worker; at least a batch.
        rank: Number of this process; by default that of ``torch.distributed``.
        num_ranks: Number of processes.
        is_filled: Whether the last process is filled up with rows of weight 0.

    Attributes:
        classes: Names of the classes.
        label: Number of the class of each event to stream (J).
        weight: Weight of each event (J).

    Raises:
        ValueError: If a number is not positive, or the rank is none of the ranks.
        DataError: If the events cannot be read, lack a column, or none is left.
    """

    def __init__(
        self,
        source: EventSource,
        inputs: EventInput,
        batch_size: int,
        part: EventPart | None = None,
        labelled: bool = True,
        shuffle: bool = True,
        seed: int = 0,
        chunk_size: int = 1000,
        buffer_size: int = 20_000,
        rank: int | None = None,
        num_ranks: int | None = None,
        is_filled: bool = True,
    ) -> None:
        inputs.columns(source, part, labelled)
        self.source = source
        self.inputs = inputs
        self.part = part
        self.labelled = labelled
        self.weighting: tuple[Weighting, Sequence[float] | None] | None = None
        self.classes = inputs.labels.names(source.classes, source.name) if labelled else ()
        # No column of the events but those that choose them and their class.
        schema = EventSchema((Feature(inputs.labels.column or LABEL, missing=0.0),))
        thin = replace(inputs, schema=schema, momentum={}, auxiliary=())
        chosen = join(thin.chunks(source, part, labelled))
        require_events(len(chosen.label), source, part)
        self.label, self.weight = chosen.label.numpy(), chosen.weight.numpy()
        self.chosen = np.zeros(source.num_events, bool)
        self.chosen[chosen.index.numpy()] = True
        super().__init__(
            source.block_ends,
            source.fingerprint(),
            batch_size,
            shuffle,
            seed,
            chunk_size,
            buffer_size,
            rank,
            num_ranks,
            is_filled,
        )

    def weigh(self, weighting: Weighting, factors: Sequence[float] | None) -> StreamingEvents:
        """Return the same stream with the weights of the training.

        Args:
            weighting: How training weighs events.
            factors: Those of the classes, as ``weighting.fit`` found them in the training events.

        Raises:
            ValueError: If events are to be drawn again, which needs them in memory.
        """
        if weighting.resampling is not None:
            raise ValueError(
                f"resampling={weighting.resampling} needs events in memory; take class_weights"
            )
        weighed = copy(self)
        weighed.weighting = (weighting, factors)
        return weighed

    def holds(self, rows: np.ndarray) -> np.ndarray:
        """Whether events are of the part, selected and of a class."""
        return self.chosen[rows]

    def read(self, rows: np.ndarray) -> EventBatch:
        """Read events of one chunk, in rising order."""
        batch = self.inputs.read(
            self.source, int(rows[0]), int(rows[-1]) + 1, self.part, self.labelled
        )
        places = np.searchsorted(batch.index.numpy(), rows)  # leaves events of no class out
        return take(batch, torch.from_numpy(places))

    def fill(self, row: EventBatch, number: int) -> EventBatch:
        """Repeat one event, with weight 0 and without label."""
        filler = take(row, torch.zeros(number, dtype=torch.int64))
        return without_weight(filler, number)

    def join(self, parts: Sequence[EventBatch]) -> EventBatch:
        """Put events one after the other."""
        return join(parts)

    def batcher(self, rows: EventBatch) -> Callable[[Tensor], EventBatch]:
        """Make what takes some of the events."""
        if self.weighting is not None:
            weighting, factors = self.weighting
            weight = weighting.weigh(rows.label.numpy(), rows.weight.numpy(), factors)
            rows = rows._replace(weight=torch.from_numpy(weight))
        return lambda places: take(rows, places)
