"""Events of the liquid-xenon detector in memory."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from hepattn.data.chunks import chunk_ranges
from hepattn.data.events.split import EventPart
from hepattn.data.xec.batch import XecBatch, join, take
from hepattn.data.xec.part import chosen_rows
from hepattn.data.xec.source import XecSource


class XecDataset(Dataset[XecBatch]):
    """Events that fit into memory, about 50 kB each.

    A ``DataLoader`` asks for whole batches at once: give it ``collate_fn=collate``.

    Args:
        source: The events.
        part: Those to keep; null for all.
        chunk_size: Events read at once.

    Raises:
        DataError: If they cannot be read or the part has none.
    """

    def __init__(
        self, source: XecSource, part: EventPart | None = None, chunk_size: int = 1000
    ) -> None:
        held = chosen_rows(source, part)
        pieces = []
        for start, stop in chunk_ranges(source.block_ends, chunk_size):
            rows = np.flatnonzero(held[start:stop])
            if len(rows):
                pieces.append(take(source.read(start, stop), torch.from_numpy(rows)))
        self.events = join(pieces)

    def __len__(self) -> int:
        return len(self.events.index)

    def __getitem__(self, event: int) -> XecBatch:
        """Return a batch of one event."""
        return self.__getitems__([event])

    def __getitems__(self, events: Sequence[int]) -> XecBatch:
        """Return a batch.

        Args:
            events: Positions in here.
        """
        return take(self.events, torch.as_tensor(events, dtype=torch.int64))


def collate(batch: XecBatch) -> XecBatch:
    """Pass on what ``XecDataset`` gives to a ``DataLoader``: it is a batch already.

    Args:
        batch: The batch.
    """
    return batch
