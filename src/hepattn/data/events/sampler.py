"""The order of training events."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

from hepattn.data.events.weights import require_classes


class EventSampler(Sampler[int]):
    """Yield the places of training events, in another random order each epoch.

    The order depends on ``seed`` and the epoch alone. With resampling, each epoch draws anew: of a
    class that has more events than are wanted some are left out, at random; where it has fewer,
    each comes as often as any other or once more.

    Args:
        label: Numbers of the classes of the events (J), none negative.
        classes: Names of the classes.
        resampling: ``under`` takes as many of each class as the rarest has, ``over`` as many as the
            most frequent has, and a map as many as it says, where it leaves classes out none;
            null takes each event once.
        seed: Seed of the order.

    Raises:
        DataError: If a class that is to be drawn has no events.
        ValueError: If the map names something else than classes.
    """

    def __init__(
        self,
        label: np.ndarray,
        classes: Sequence[str],
        resampling: Literal["under", "over"] | Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        self.places = [np.flatnonzero(label == number) for number in range(len(classes))]
        there = np.array([len(places) for places in self.places])
        if resampling is None:
            self.wanted = there
        elif isinstance(resampling, str):
            require_classes(there, classes)
            size = there.min() if resampling == "under" else there.max()
            self.wanted = np.full(len(classes), size)
        else:
            if unknown := sorted(set(resampling) - set(classes)):
                raise ValueError(f"resampling of {unknown} must be of {', '.join(classes)}")
            self.wanted = np.array([resampling.get(name, 0) for name in classes])
            asked = self.wanted > 0
            require_classes(there[asked], [n for n, a in zip(classes, asked, strict=True) if a])
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration has."""
        self.epoch = epoch

    def order(self) -> np.ndarray:
        """Places of the events of the present epoch, in order."""
        generator = np.random.default_rng([self.seed, self.epoch])
        drawn = []
        for places, wanted in zip(self.places, self.wanted, strict=True):
            rounds, more = divmod(int(wanted), max(1, len(places)))
            drawn += [places] * rounds + [generator.permutation(places)[:more]]
        return generator.permutation(np.concatenate(drawn))

    def __iter__(self) -> Iterator[int]:
        yield from self.order().tolist()

    def __len__(self) -> int:
        return int(self.wanted.sum())
