"""The order of training events."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from hepattn.data.batching import EpochBatches, check_batch_size, cut
from hepattn.data.events.weights import require_classes


class EventSampler(EpochBatches):
    """Batches of the places of training events, in another random order each epoch.

    With resampling, each epoch draws anew: of a class that has more events than are wanted some are
    left out, at random; where it has fewer, each comes as often as any other or once more.

    Args:
        label: Numbers of the classes of the events (J), none negative.
        classes: Names of the classes.
        batch_size: Events of a batch; the last one may have fewer.
        resampling: ``under`` takes as many of each class as the rarest has, ``over`` as many as the
            most frequent has, and a map as many as it says, where it leaves classes out none;
            null takes each event once.
        seed: Seed of the order.

    Raises:
        DataError: If a class that is to be drawn has no events.
        ValueError: If the map names something else than classes, or ``batch_size`` is not positive.
    """

    def __init__(
        self,
        label: np.ndarray,
        classes: Sequence[str],
        batch_size: int,
        resampling: Literal["under", "over"] | Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        check_batch_size(batch_size)
        self.batch_size = batch_size
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

    def make(self, generator: np.random.Generator) -> list[list[int]]:
        """Return the batches of an epoch; arguments as in `EpochBatches.make`."""
        drawn = []
        for places, wanted in zip(self.places, self.wanted, strict=True):
            rounds, more = divmod(int(wanted), max(1, len(places)))
            drawn += [places] * rounds + [generator.permutation(places)[:more]]
        return cut(generator.permutation(np.concatenate(drawn)), self.batch_size)
