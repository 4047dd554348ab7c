"""A loader that can go on in the middle of an epoch."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from hepattn.data.streaming import StreamingRows


class EpochSampler(Sampler[None]):
    """Asks for the next batch again and again, and passes on which epoch it is.

    Args:
        dataset: The rows.
    """

    def __init__(self, dataset: StreamingRows[Any, Any]) -> None:
        self.set_epoch = dataset.set_epoch

    def __iter__(self) -> Iterator[None]:
        while True:
            yield None


class StreamingLoader(DataLoader[Any]):
    """A loader of ``StreamingRows`` that knows which batches it handed out.

    Lightning saves its state in checkpoints, restores it, and says which epoch it is. Each
    iteration is an epoch of its own; one that was broken off is not continued, unless its state
    is loaded.

    Args:
        dataset: The rows.
        num_workers: Number of processes that read; 0 for none beside this one.
        persistent_workers: Whether the processes live on after an epoch.
        **_: What Lightning, which makes the loader of a prediction anew, gives any ``DataLoader``;
            the rows decide it themselves.
    """

    def __init__(
        self,
        dataset: StreamingRows[Any, Any],
        num_workers: int = 0,
        persistent_workers: bool = False,
        **_: Any,
    ) -> None:
        super().__init__(
            dataset,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),  # copied to the GPU faster
            persistent_workers=persistent_workers,
        )
        # DataLoader lets nobody choose a sampler for streams, and Lightning looks for epochs there.
        object.__setattr__(self, "sampler", EpochSampler(dataset))

    def __iter__(self) -> Iterator[Any]:
        if not self.num_workers:
            yield from super().__iter__()
            return
        self.dataset.begin()
        for batch in super().__iter__():
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
