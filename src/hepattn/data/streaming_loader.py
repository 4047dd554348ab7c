"""A loader that can go on in the middle of an epoch."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
from torch.utils.data import DataLoader

from hepattn.data.streaming import StreamingRows


class StreamingLoader:
    """A loader of ``StreamingRows`` that knows which batches it handed out.

    Lightning saves its state in checkpoints, restores it, and says which epoch it is. Each
    iteration is an epoch of its own; one that was broken off is not continued, unless its state
    is loaded. The loader draws no random numbers of the process.

    Args:
        dataset: The rows.
        num_workers: Number of processes that read, and live on after an epoch; 0 for none beside
            this one.
    """

    batch_sampler = None
    """Lightning looks for one."""

    def __init__(self, dataset: StreamingRows[Any, Any], num_workers: int = 0) -> None:
        self.dataset = dataset
        self.num_workers = num_workers
        self._loader = DataLoader(
            dataset,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),  # copied to the GPU faster
            persistent_workers=num_workers > 0,
            generator=torch.Generator(),  # that of the process stays as it is
        )

    def __len__(self) -> int:
        """Number of batches of an epoch, of this process."""
        return len(self.dataset)

    @property
    def sampler(self) -> Self:
        """Itself: Lightning calls ``set_epoch`` on the ``sampler`` of a loader."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration has; see ``StreamingRows.set_epoch``."""
        self.dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        if not self.num_workers:
            yield from self._loader
            return
        self.dataset.begin()
        for batch in self._loader:
            self.dataset.count()
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """State of the rows, and the number of workers."""
        return self.dataset.state_dict() | {"num_workers": self.num_workers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state at the next iteration.

        Args:
            state: What ``state_dict`` returned.

        Raises:
            ValueError: If the rows, their order or the number of workers differ.
        """
        if max(1, state["num_workers"]) != max(1, self.num_workers):
            raise ValueError(
                f"num_workers={self.num_workers} must be {state['num_workers']}, as when the state "
                "was saved: another number deals out the batches in another order"
            )
        self.dataset.load_state_dict(state)
