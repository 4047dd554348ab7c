"""Rows of files that need not fit into memory, such as jets or events."""

# B rows of a batch

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from hepattn.data.chunks import chunk_ranges
from hepattn.ops.distributed import process_rank

Rows = TypeVar("Rows")
Batch = TypeVar("Batch")


class StreamingRows(IterableDataset[Batch], Generic[Rows, Batch]):
    """Batches of rows that are read while they are needed.

    Each epoch puts the chunks of the source into a random order, which depends on the seed and
    the epoch alone. The rows to stream, chunk by chunk, form a line that is cut into as many
    equal pieces as there are processes (ranks); the batches of a rank are dealt out to its
    workers in blocks. A worker reads ``buffer_size`` rows, shuffles them, hands out their
    batches, and reads on. So memory does not grow with the source, and every row comes once an
    epoch. Where the rows do not divide among the ranks, the last one is filled up with rows of
    weight 0. The last batch of a rank may be smaller; none is dropped.

    The number of batches and their contents do not depend on what was read before, so that a run
    can go on from any batch; ``state_dict`` says from which. With workers it counts batches
    that were handed out by ``StreamingLoader``, not those that a worker has prepared. The number of
    workers must then be the same as before.

    Without ``shuffle`` the rows come in the order of the source, block after block; several
    workers take turns, and ``index`` tells which rows are which.

    Args:
        block_ends: Rows at which stored blocks end, in order.
        fingerprint: Hash of the source.
        batch_size: Number of rows of a batch.
        shuffle: Whether each epoch has its own random order.
        seed: Seed of that order.
        chunk_size: Rows read at once, where the file allows it whole stored blocks. Smaller ones
            mix better and read slower: each buffer decodes every row group of a parquet file, and
            every block of another, of which it holds a chunk.
        buffer_size: Rows that are shuffled together, in each worker; at least a batch.
        rank: Number of this process; by default that of ``torch.distributed``.
        num_ranks: Number of processes.
        is_filled: Whether the last process is filled up, so that all have as many batches; an
            evaluation needs no more than its rows.

    Raises:
        ValueError: If a number is not positive, or the rank is none of the ranks.
    """

    def __init__(
        self,
        block_ends: np.ndarray,
        fingerprint: str,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        chunk_size: int = 1000,
        buffer_size: int = 20_000,
        rank: int | None = None,
        num_ranks: int | None = None,
        is_filled: bool = True,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("chunk_size", chunk_size)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if buffer_size < batch_size:
            raise ValueError(f"buffer_size={buffer_size} must be at least batch_size={batch_size}")
        ours = process_rank()
        rank = ours[0] if rank is None else rank
        num_ranks = ours[1] if num_ranks is None else num_ranks
        if not 0 <= rank < num_ranks:
            raise ValueError(f"rank={rank} must be from 0 to num_ranks - 1 = {num_ranks - 1}")
        self.fingerprint = fingerprint
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.buffer_size = buffer_size // batch_size * batch_size
        self.rank = rank
        self.num_ranks = num_ranks
        self.is_filled = is_filled
        self.chunks = chunk_ranges(block_ends, chunk_size)
        self.chunk_rows = np.array([len(self._rows(chunk)) for chunk in range(len(self.chunks))])
        self.num_rows = int(self.chunk_rows.sum())
        # Epoch and first batch; shared, so that workers that live on see the next ones. Batches
        # are counted elsewhere: a worker may start when others have handed out some.
        self._start = torch.zeros(2, dtype=torch.int64).share_memory_()
        self._served = 0
        self._has_begun = False

    @abstractmethod
    def holds(self, rows: np.ndarray) -> np.ndarray:
        """Whether rows of the source are among those to stream."""

    @abstractmethod
    def read(self, rows: np.ndarray) -> Rows:
        """Read rows of one chunk that are to be streamed, in rising order."""

    @abstractmethod
    def fill(self, row: Rows, number: int) -> Rows:
        """Repeat one row, with weight 0."""

    @abstractmethod
    def join(self, parts: Sequence[Rows]) -> Rows:
        """Put rows one after the other."""

    @abstractmethod
    def batcher(self, rows: Rows) -> Callable[[Tensor], Batch]:
        """Make what picks rows by their places (B) and makes a batch of them."""

    @property
    def rows_per_rank(self) -> int:
        """Number of rows of each rank, those of weight 0 included."""
        return -(-self.num_rows // self.num_ranks)

    @property
    def own_rows(self) -> int:
        """Number of rows of this rank."""
        if self.is_filled:
            return self.rows_per_rank
        left = self.num_rows - self.rank * self.rows_per_rank
        return max(0, min(self.rows_per_rank, left))

    def __len__(self) -> int:
        """Number of batches of an epoch, of this rank."""
        return -(-self.own_rows // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration has.

        It begins with its first batch, or where a state of the same epoch says that was loaded
        and not used yet.

        Args:
            epoch: Its number.
        """
        if self._has_begun or epoch != int(self._start[0]):
            self._set_start(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """Epoch, number of batches handed out in it, and what they depend on."""
        epoch = int(self._start[0])
        return {"epoch": epoch, "batches": self._served, "order": self._order_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state at the next iteration.

        Args:
            state: What ``state_dict`` returned.

        Raises:
            ValueError: If it belongs to another source or another order.
        """
        ours = self._order_state()
        if changed := [key for key, value in ours.items() if state["order"].get(key) != value]:
            raise ValueError(
                f"{', '.join(changed)}: {[ours[key] for key in changed]} must be "
                f"{[state['order'].get(key) for key in changed]}, as when the state was saved"
            )
        self._set_start(state["epoch"], state["batches"])

    def _set_start(self, epoch: int, batches: int) -> None:
        self._start[:] = torch.tensor([epoch, batches])
        self._served = batches
        self._has_begun = False

    def _order_state(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "num_rows": self.num_rows,
            "num_ranks": self.num_ranks,
            "batch_size": self.batch_size,
            "buffer_size": self.buffer_size,
            "num_chunks": len(self.chunks),
            "shuffle": self.shuffle,
            "seed": self.seed,
        }

    def begin(self) -> None:
        """Start where a loaded state says, or else at the first batch of the next epoch."""
        if self._has_begun:
            self._set_start(int(self._start[0]) + 1, 0)
        self._has_begun = True

    def count(self) -> None:
        """Count a batch that is handed out."""
        self._served += 1

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        if worker is not None:  # StreamingLoader begins and counts, in the main process
            yield from self._batches(worker.id, worker.num_workers)
            return
        self.begin()
        for batch in self._batches(0, 1):
            self.count()
            yield batch

    def _batches(self, worker: int, num_workers: int) -> Iterator[Batch]:
        """The batches of a worker from the start on."""
        epoch, served = self._start.tolist()
        if served > len(self):
            raise ValueError(f"{served} batches were handed out of an epoch of {len(self)}")
        # A loader begins with its first worker, which continues for the one whose turn it is.
        worker = (worker + served) % num_workers
        # The first workers have one more, so that taking turns ends with the last batch.
        whole, more = divmod(len(self), num_workers)
        first = worker * whole + min(worker, more)
        last = first + whole + (worker < more)
        skip = len(range(worker, served, num_workers))
        order = np.arange(len(self.chunks))
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        per_buffer = self.buffer_size // self.batch_size
        # Buffers start at the same batches whatever was handed out before.
        for start in range(first + skip // per_buffer * per_buffer, last, per_buffer):
            stop = min(start + per_buffer, last)
            rows, number = self._read_buffer(start * self.batch_size, stop * self.batch_size, order)
            permutation = np.arange(number)
            if self.shuffle:
                generator = np.random.default_rng([self.seed, epoch, self.rank, start])
                permutation = generator.permutation(permutation)
            batcher = self.batcher(rows)
            pieces = torch.from_numpy(permutation).split(self.batch_size)
            for piece in pieces[max(0, first + skip - start) :]:
                yield batcher(piece)

    def _read_buffer(self, start: int, stop: int, order: np.ndarray) -> tuple[Rows, int]:
        """Read rows of this rank, counted in the order of the epoch, and say how many.

        They come in the order of the source: what it keeps of a block serves all its chunks.
        """
        start = self.rank * self.rows_per_rank + start
        stop = self.rank * self.rows_per_rank + min(stop, self.own_rows)
        number = stop - start
        ends = np.cumsum(self.chunk_rows[order])
        pieces = []
        position = int(np.searchsorted(ends, start, side="right"))
        while start < stop and position < len(order):
            chunk = int(order[position])
            before = int(ends[position]) - int(self.chunk_rows[chunk])
            end = min(stop, int(ends[position]))
            if end > start:
                pieces.append(self._rows(chunk)[start - before : end - before])
                start = end
            position += 1
        parts = [self.read(rows) for rows in sorted(pieces, key=lambda rows: int(rows[0]))]
        if start < stop:  # the rows do not divide among the ranks
            first = self._rows(int(np.flatnonzero(self.chunk_rows)[0]))[:1]
            parts.append(self.fill(self.read(first), stop - start))
        return self.join(parts), number

    def _rows(self, chunk: int) -> np.ndarray:
        """Rows of a chunk that are to be streamed."""
        rows = np.arange(*self.chunks[chunk])
        return rows[self.holds(rows)]
