"""Jets that need not fit into memory."""

# B jets of a batch, J jets

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from hepattn.data.error import DataError
from hepattn.data.jets.batch import JetBatch
from hepattn.data.jets.input import JetInput, PackedJets, Padder, join
from hepattn.data.jets.source import JetSource
from hepattn.data.jets.split import JetPart
from hepattn.data.streaming import StreamingRows


class StreamingJets(StreamingRows[PackedJets, JetBatch]):
    """Batches of jets that are read while they are needed; see ``StreamingRows``.

    Args:
        source: The jets.
        inputs: What a network reads of them.
        batch_size: Number of jets of a batch.
        part: The jets to stream; null for all.
        shuffle: Whether each epoch has its own random order.
        seed: Seed of that order.
        chunk_size: Jets read at once, where the file allows it whole stored blocks.
        buffer_size: Jets that are shuffled together, in each worker; at least a batch.
        rank: Number of this process; by default that of ``torch.distributed``.
        num_ranks: Number of processes.
        is_filled: Whether the last process is filled up with rows of weight 0.

    Raises:
        ValueError: If a number is not positive, or the rank is none of the ranks.
        DataError: If the source cannot give the features, or the part has no jets.
    """

    def __init__(
        self,
        source: JetSource,
        inputs: JetInput,
        batch_size: int,
        part: JetPart | None = None,
        shuffle: bool = True,
        seed: int = 0,
        chunk_size: int = 1000,
        buffer_size: int = 20_000,
        rank: int | None = None,
        num_ranks: int | None = None,
        is_filled: bool = True,
    ) -> None:
        inputs.check(source)
        self.source = source
        self.inputs = inputs
        self.part = part
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
        if not self.num_rows:
            raise DataError.of(
                source.name,
                f"part {part.name}" if part else "jets",
                found=f"none of the {source.num_jets} jets",
                expected="at least one",
                remedy="take another seed, other fractions or more jets",
            )

    def holds(self, rows: np.ndarray) -> np.ndarray:
        """Whether jets belong to the part."""
        return np.full(len(rows), True) if self.part is None else self.part.holds(rows)

    def read(self, rows: np.ndarray) -> PackedJets:
        """Read jets of one chunk, in rising order."""
        first, last = int(rows[0]), int(rows[-1]) + 1
        jets = self.inputs.read(self.source, first, last)
        return jets if len(rows) == last - first else jets.take(rows - first)

    def fill(self, row: PackedJets, number: int) -> PackedJets:
        """Repeat one jet, with weight 0 and without label."""
        filler = row.take(np.zeros(number, np.int64))
        filler.weight[:] = 0
        filler.label[:] = -1
        return filler

    def join(self, parts: Sequence[PackedJets]) -> PackedJets:
        """Put jets one after the other."""
        return join(parts)

    def batcher(self, rows: PackedJets) -> Callable[[Tensor], JetBatch]:
        """Make what pads some of the jets."""
        return Padder(rows, self.inputs.pad_to).batch
