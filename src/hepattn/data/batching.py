"""Which rows make a batch, epoch by epoch."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

POOL_BATCHES = 50  # batches that are sorted together: more means less padding, less randomness


class EpochBatches(Sampler[list[int]]):
    """The batches of each epoch, as lists of rows; they depend on the seed and the epoch alone.

    Give them to an ``EpochLoader``, or to a ``DataLoader`` as ``batch_sampler``.

    Args:
        seed: Seed of the order.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.epoch = 0
        self._made: tuple[int, list[list[int]]] | None = None

    @abstractmethod
    def make(self, generator: np.random.Generator) -> list[list[int]]:
        """Return the batches of an epoch.

        Args:
            generator: Random numbers of the seed and the epoch.
        """

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration has."""
        self.epoch = epoch

    def batches(self) -> list[list[int]]:
        """All batches of the present epoch, in order."""
        if self._made is None or self._made[0] != self.epoch:
            self._made = (self.epoch, self.make(np.random.default_rng([self.seed, self.epoch])))
        return self._made[1]

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches()

    def __len__(self) -> int:
        return len(self.batches())


class RowSampler(EpochBatches):
    """Batches of one size, of rows in their order or in another random order each epoch.

    Args:
        rows: The rows, in order, or their number.
        batch_size: Rows of a batch; the last one may have fewer.
        shuffle: Whether each epoch has its own random order.
        seed: Seed of that order.

    Raises:
        ValueError: If ``batch_size`` is not positive.
    """

    def __init__(
        self, rows: Sequence[int] | int, batch_size: int, shuffle: bool = False, seed: int = 0
    ) -> None:
        super().__init__(seed)
        self.rows = np.arange(rows) if isinstance(rows, int) else np.asarray(rows, np.int64)
        self.batch_size = batch_size
        self.shuffle = shuffle
        check_batch_size(batch_size)

    def make(self, generator: np.random.Generator) -> list[list[int]]:
        """Return the batches of an epoch; arguments as in `EpochBatches.make`."""
        order = generator.permutation(self.rows) if self.shuffle else self.rows
        return cut(order, self.batch_size)


class LengthBucketSampler(EpochBatches):
    """Yield batches of indices whose events have similar lengths, so that little is padded.

    Each epoch permutes the events, cuts the permutation into pools of fifty batches, sorts each
    pool by length, cuts it into batches and permutes the batches. The order depends on ``seed``
    and the epoch alone. Without ``shuffle`` all events come in ascending length. Every event
    comes exactly once an epoch.

    Args:
        lengths: Number of tokens of each event.
        max_events: Largest number of events in a batch.
        max_tokens: Largest number of tokens in a batch, padding included; an event that is
            longer by itself gets its own batch. No bound by default. With a bound, the number
            of batches may differ a little between epochs.
        shuffle: Whether each epoch has its own random order.
        seed: Seed of that order.

    Raises:
        ValueError: If a bound is not positive or a length negative.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        max_events: int,
        max_tokens: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        self.lengths = np.asarray(lengths, dtype=np.int64).reshape(-1)
        if (self.lengths < 0).any():
            raise ValueError(f"lengths hold {self.lengths.min()}; none may be negative")
        if max_events < 1:
            raise ValueError(f"max_events={max_events} must be at least 1")
        if max_tokens is not None and max_tokens < 1:
            raise ValueError(f"max_tokens={max_tokens} must be at least 1, or null for no bound")
        self.max_events = max_events
        self.max_tokens = max_tokens
        self.shuffle = shuffle

    def make(self, generator: np.random.Generator) -> list[list[int]]:
        """Return the batches of an epoch; arguments as in `EpochBatches.make`."""
        order = np.arange(len(self.lengths))
        if not self.shuffle:
            return self._cut(order)
        order = generator.permutation(order)
        size = POOL_BATCHES * self.max_events
        pools = [order[start : start + size] for start in range(0, len(order), size)]
        batches = [batch for pool in pools for batch in self._cut(pool)]
        return [batches[index] for index in generator.permutation(len(batches))]

    def _cut(self, pool: np.ndarray) -> list[list[int]]:
        """Sort a pool by length and cut it into batches within the bounds."""
        batches: list[list[int]] = []
        for index in pool[np.argsort(self.lengths[pool], kind="stable")]:
            # Lengths ascend, so this event sets the padded length of its batch.
            if not batches or len(batches[-1]) >= self._limit(int(self.lengths[index])):
                batches.append([])
            batches[-1].append(int(index))
        return batches

    def _limit(self, length: int) -> int:
        """How many events of a length fit a batch, at least one."""
        if self.max_tokens is None or length == 0:
            return self.max_events
        return max(1, min(self.max_events, self.max_tokens // length))


def cut(order: np.ndarray, batch_size: int) -> list[list[int]]:
    """Cut rows into batches, of which the last may be smaller.

    Args:
        order: The rows, in order.
        batch_size: Rows of a batch.
    """
    return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]


def check_batch_size(batch_size: int) -> None:
    """Refuse batches without rows.

    Args:
        batch_size: Rows of a batch.

    Raises:
        ValueError: If there are none.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
