"""Jets in memory."""

# J jets, P particles

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from hepattn.data.chunks import chunk_ranges
from hepattn.data.error import DataError
from hepattn.data.jets.batch import JetBatch
from hepattn.data.jets.input import JetInput, PackedJets, Padder, join
from hepattn.data.jets.source import JetSource
from hepattn.data.jets.split import JetPart


class JetDataset(Dataset[JetBatch]):
    """Jets of a source that fit into memory, as a network reads them.

    A ``DataLoader`` asks for whole batches at once: give it ``collate_fn=collate``. Jets without
    particles stay, with no real slot.

    Args:
        source: The jets.
        inputs: What a network reads of them.
        part: The jets to keep; null for all.
        chunk_size: Number of jets read at once.

    Raises:
        DataError: If the jets cannot be read, lack a feature, or the part has none.
    """

    def __init__(
        self,
        source: JetSource,
        inputs: JetInput,
        part: JetPart | None = None,
        chunk_size: int = 10_000,
    ) -> None:
        inputs.check(source)
        self.source = source
        self.inputs = inputs
        pieces = []
        for start, stop in chunk_ranges(source.block_ends, chunk_size):
            piece = inputs.read(source, start, stop)
            if part is not None:
                piece = piece.take(np.flatnonzero(part.holds(piece.index)))
            pieces.append(piece)
        self._set(join(pieces))
        if not len(self):
            raise DataError.of(
                source.name,
                f"part {part.name}" if part else "jets",
                found=f"none of the {source.num_jets} jets",
                expected="at least one",
                remedy="take another seed, other fractions or more jets",
            )

    def _set(self, jets: PackedJets) -> None:
        self._padder = Padder(jets, self.inputs.pad_to)

    @property
    def lengths(self) -> list[int]:
        """Number of particles of each jet, for a sampler."""
        return self._padder.counts.tolist()

    @property
    def labels(self) -> np.ndarray:
        """Number of the class of each jet (J)."""
        return self._padder.label.numpy()

    @property
    def columns(self) -> np.ndarray:
        """Features of all particles (P, F), such as to fit a scaling."""
        return self._padder.particles[:-1].numpy()

    def __len__(self) -> int:
        return len(self._padder.counts)

    def __getitem__(self, jet: int) -> JetBatch:
        """Return a batch of one jet."""
        return self.__getitems__([jet])

    def __getitems__(self, jets: Sequence[int]) -> JetBatch:
        """Pad a batch of jets.

        Args:
            jets: Positions in here.
        """
        return self._padder.batch(torch.as_tensor(jets, dtype=torch.int64))


def collate(batch: JetBatch) -> JetBatch:
    """Pass on what ``JetDataset`` gives to a ``DataLoader``: it is a batch already.

    Args:
        batch: The batch.
    """
    return batch
