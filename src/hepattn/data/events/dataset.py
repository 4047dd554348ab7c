"""Events in memory."""

# J events, C classes

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from torch.utils.data import Dataset

from hepattn.data.error import DataError
from hepattn.data.events.batch import EventBatch, join, take
from hepattn.data.events.input import EventInput
from hepattn.data.events.source import EventSource
from hepattn.data.events.split import EventPart
from hepattn.data.events.weights import Weighting

logger = logging.getLogger(__name__)


class EventDataset(Dataset[EventBatch]):
    """Events of a source that fit into memory, as a network reads them.

    A ``DataLoader`` asks for whole batches at once: give it ``collate_fn=collate``.

    Args:
        source: The events.
        inputs: What a network reads of them.
        part: The events to keep; null for all.
        labelled: Whether to leave out events of no class, such as of a process that is in none;
            else they have the label -1.

    Attributes:
        batch: All events, as one batch.
        classes: Names of the classes.

    Raises:
        DataError: If the events cannot be read, lack a column, or none is left.
    """

    def __init__(
        self,
        source: EventSource,
        inputs: EventInput,
        part: EventPart | None = None,
        labelled: bool = True,
    ) -> None:
        # Of events to predict the classes may be unknown.
        self.classes = inputs.labels.names(source.classes, source.name) if labelled else ()
        self.batch = join(inputs.chunks(source, part, labelled))
        require_events(len(self), source, part)
        if labelled:
            counts = np.bincount(self.label, minlength=len(self.classes))
            logger.info(
                "%s: %d of %d events in %s: %s",
                source.name,
                len(self),
                source.num_events,
                f"part {part.name}" if part else "all parts",
                ", ".join(f"{n} {name}" for name, n in zip(self.classes, counts, strict=True)),
            )

    @property
    def label(self) -> np.ndarray:
        """Number of the class of each event (J)."""
        return self.batch.label.numpy()

    @property
    def weight(self) -> np.ndarray:
        """Weight of each event (J)."""
        return self.batch.weight.numpy()

    def weigh(self, weighting: Weighting, factors: Sequence[float] | None) -> EventDataset:
        """Return the same events with the weights of the training.

        Args:
            weighting: How training weighs events.
            factors: Those of the classes, as ``weighting.fit`` found them in the training events.
        """
        weighed = copy(self)
        weight = weighting.weigh(self.label, self.weight, factors)
        weighed.batch = self.batch._replace(weight=torch.from_numpy(weight))
        return weighed

    def __len__(self) -> int:
        return len(self.batch.label)

    def __getitem__(self, event: int) -> EventBatch:
        """Return a batch of one event."""
        return self.__getitems__([event])

    def __getitems__(self, events: Sequence[int]) -> EventBatch:
        """Return a batch.

        Args:
            events: Places in here.
        """
        return take(self.batch, torch.as_tensor(events, dtype=torch.int64))


def collate(batch: EventBatch) -> EventBatch:
    """Pass on what ``EventDataset`` gives to a ``DataLoader``: it is a batch already.

    Args:
        batch: The batch.
    """
    return batch


def require_events(num_events: int, source: EventSource, part: EventPart | None) -> None:
    """Refuse a choice of no events.

    Args:
        num_events: Number of events that are left.
        source: All events.
        part: The part of them.

    Raises:
        DataError: If there are none.
    """
    if not num_events:
        raise DataError.of(
            source.name,
            f"part {part.name}" if part else "events",
            found=f"none of the {source.num_events} events",
            expected="at least one that is selected and of a class",
            remedy="widen the selection, name processes in labels.classes or take more events",
        )
