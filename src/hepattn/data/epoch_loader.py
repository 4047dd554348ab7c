"""A loader of rows in memory, which processes share, and with which a run goes on at any batch."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Self, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from hepattn.data.batching import EpochBatches
from hepattn.data.error import DataError
from hepattn.ops.distributed import process_rank

Batch = TypeVar("Batch")


def without_weight(batch: Batch, number: int) -> Batch:
    """Take the weights of the last rows of a batch; where they have labels, these and all tokens.

    Args:
        batch: A named tuple with a ``weight`` (B), and perhaps with a ``label`` (B), -1 for none,
            and with ``valid`` tokens (B, N).
        number: How many rows.
    """
    nothing = {"weight": 0} | ({"label": -1, "valid": False} if "label" in batch._fields else {})
    fields = {name: getattr(batch, name).clone() for name in nothing}
    for name, value in nothing.items():
        fields[name][-number:] = value
    return batch._replace(**fields)


class EpochLoader(Generic[Batch]):
    """Hand out the batches of an epoch, to each process its share, from any batch on.

    The rows of each batch are dealt out to the processes. Together they take the very steps of one
    process: give ``batches`` a size of ``num_processes()`` times the rows of one process. Where
    rows do not divide, some processes get a row once more, without weight, so that all have as
    many rows and batches; for an evaluation, which needs no equal steps, leave that out.

    Each iteration is an epoch of its own. Lightning says which, saves the state in checkpoints and
    restores it, so that a run that was killed goes on with the batch that it would have had next.
    An iteration that was broken off is not continued otherwise. The loader draws no random numbers
    of the process.

    Args:
        dataset: The rows.
        batches: Which rows make a batch.
        collate: Makes a batch of what the dataset gives for a list of rows.
        num_workers: Processes that read rows; 0 for none beside this one.
        is_filled: Whether processes that have fewer rows get some without weight.
        fill: Takes the weight of so many rows at the end of a batch.
        rank: Number of this process; by default that of ``torch.distributed``.
        num_ranks: Number of processes.

    Raises:
        DataError: If a process has no rows in an evaluation.
    """

    batch_sampler = None
    """Lightning looks for one."""

    def __init__(
        self,
        dataset: Dataset[Any],
        batches: EpochBatches,
        collate: Callable[[Any], Batch],
        num_workers: int = 0,
        is_filled: bool = True,
        fill: Callable[[Batch, int], Batch] = without_weight,
        rank: int | None = None,
        num_ranks: int | None = None,
    ) -> None:
        ours = process_rank()
        self.dataset = dataset
        self.fill = fill
        self._shares = _Shares(
            batches,
            ours[0] if rank is None else rank,
            ours[1] if num_ranks is None else num_ranks,
            is_filled,
        )
        self._has_begun = False
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._shares,
            collate_fn=collate,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),  # copied to the GPU faster
            generator=torch.Generator(),  # that of the process stays as it is
        )
        if not is_filled and len(dataset) and not len(self):
            raise DataError(
                f"{len(dataset)} row(s) are too few for {self._shares.num_ranks} processes to "
                "evaluate; take fewer processes"
            )

    def __len__(self) -> int:
        """Number of batches of the epoch, of this process."""
        return len(self._shares.of_epoch())

    @property
    def sampler(self) -> Self:
        """Itself: Lightning calls ``set_epoch`` on the ``sampler`` of a loader."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration has.

        It begins with its first batch, or where a state of the same epoch says that was loaded and
        not used yet.

        Args:
            epoch: Its number.
        """
        if self._has_begun or epoch != self._shares.epoch:
            self._start(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """Epoch and number of batches handed out in it, and what they depend on."""
        return {
            "epoch": self._shares.epoch,
            "batches": self._shares.served,
            "num_rows": len(self.dataset),
            "num_batches": len(self),
            "num_ranks": self._shares.num_ranks,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state at the next iteration.

        Args:
            state: What ``state_dict`` returned.

        Raises:
            ValueError: If it belongs to other rows or another number of processes, in the middle
                of an epoch.
        """
        self._start(state["epoch"], state["batches"])
        is_within = 0 < state["batches"] < state["num_batches"]
        ours = self.state_dict()
        changed = [key for key, value in ours.items() if state[key] != value]
        if is_within and changed:
            raise ValueError(
                f"{', '.join(changed)}: {[ours[key] for key in changed]} must be "
                f"{[state[key] for key in changed]}, as when the state was saved: the run was "
                "stopped in the middle of an epoch"
            )

    def _start(self, epoch: int, served: int) -> None:
        self._shares.epoch, self._shares.served = epoch, served
        self._has_begun = False

    def __iter__(self) -> Iterator[Batch]:
        shares = self._shares
        if self._has_begun:
            self._start(shares.epoch + 1, 0)
        self._has_begun = True
        self._loader.generator.manual_seed(shares.epoch)  # of the workers
        missing = [number for _, number in shares.of_epoch()]
        for batch in self._loader:
            number = missing[shares.served]
            shares.served += 1
            yield self.fill(batch, number) if number else batch


class _Shares:
    """The rows of one process in each batch of an epoch, from the first one on that is not served.

    Args:
        batches: The batches of all processes.
        rank: Number of this process.
        num_ranks: Number of processes.
        is_filled: Whether rows come twice so that all processes have as many.
    """

    def __init__(self, batches: EpochBatches, rank: int, num_ranks: int, is_filled: bool) -> None:
        if not 0 <= rank < num_ranks:
            raise ValueError(f"rank={rank} must be from 0 to num_ranks - 1 = {num_ranks - 1}")
        self.batches = batches
        self.rank = rank
        self.num_ranks = num_ranks
        self.is_filled = is_filled
        self.epoch = 0
        self.served = 0

    def of_epoch(self) -> list[tuple[list[int], int]]:
        """Rows of this process, batch by batch, and how many of them only fill it up."""
        self.batches.set_epoch(self.epoch)
        shares = []
        for rows in self.batches.batches():
            share = rows[self.rank :: self.num_ranks]
            missing = -(-len(rows) // self.num_ranks) - len(share) if self.is_filled else 0
            if share or missing:
                shares.append((share + missing * rows[:1], missing))
        return shares

    def __iter__(self) -> Iterator[list[int]]:
        for rows, _ in self.of_epoch()[self.served :]:
            yield rows

    def __len__(self) -> int:
        return len(self.of_epoch()) - self.served
