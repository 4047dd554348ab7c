"""Events of the liquid-xenon detector that need not fit into memory."""

# B events of a batch

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from hepattn.data.epoch_loader import without_weight
from hepattn.data.events.split import EventPart
from hepattn.data.streaming import StreamingRows
from hepattn.data.xec.batch import XecBatch, join, take
from hepattn.data.xec.part import chosen_rows
from hepattn.data.xec.source import XecSource


class StreamingXec(StreamingRows[XecBatch, XecBatch]):
    """Batches of events that are read while they are needed; see ``StreamingRows``.

    Args:
        source: The events.
        batch_size: Events in a batch.
        part: Those to stream; null for all.
        shuffle: Whether each epoch has its own random order.
        seed: Seed of that order.
        chunk_size: Events read at once, where the file allows it whole stored blocks.
        buffer_size: Events that are shuffled together, in each worker; at least a batch.
        rank: Number of this process; by default that of ``torch.distributed``.
        num_ranks: Number of processes.
        is_filled: Whether the last process is filled up with rows of weight 0.

    Raises:
        ValueError: If a number is not positive, or the rank is none of the ranks.
        DataError: If the part has no events.
    """

    def __init__(
        self,
        source: XecSource,
        batch_size: int,
        part: EventPart | None = None,
        shuffle: bool = True,
        seed: int = 0,
        chunk_size: int = 100,
        buffer_size: int = 2000,
        rank: int | None = None,
        num_ranks: int | None = None,
        is_filled: bool = True,
    ) -> None:
        self.source = source
        self.held = chosen_rows(source, part)
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

    def holds(self, rows: np.ndarray) -> np.ndarray:
        """Whether events belong to the part."""
        return self.held[rows]

    def read(self, rows: np.ndarray) -> XecBatch:
        """Read events of one chunk, in rising order."""
        first, last = int(rows[0]), int(rows[-1]) + 1
        events = self.source.read(first, last)
        return events if len(rows) == last - first else take(events, torch.from_numpy(rows - first))

    def fill(self, row: XecBatch, number: int) -> XecBatch:
        """Repeat one event, with weight 0."""
        filler = take(row, torch.zeros(number, dtype=torch.int64))
        return without_weight(filler, number)

    def join(self, parts: Sequence[XecBatch]) -> XecBatch:
        """Put events one after the other."""
        return join(parts)

    def batcher(self, rows: XecBatch) -> Callable[[Tensor], XecBatch]:
        """Make what picks some of the events."""
        return lambda places: take(rows, places)
