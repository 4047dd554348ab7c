"""From columns of a file to padded tensors."""

# J events, P slots in the file, S slots of a batch, F columns

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from hepattn.data.error import DataError
from hepattn.data.events.momentum import DERIVED, Momentum, derive
from hepattn.data.events.table import ObjectTable
from hepattn.nn.normalise import Feature


class Slots:
    """Makes tensors of some events of a source.

    Args:
        source: What messages call the source.
        index: Rows of the events in the source (J).
    """

    def __init__(self, source: str, index: np.ndarray) -> None:
        self.source = source
        self.index = index

    def stack(
        self,
        features: Sequence[Feature],
        columns: Mapping[str, np.ndarray],
        valid: np.ndarray,
    ) -> Tensor:
        """Put columns side by side.

        Args:
            features: The columns to take, in order.
            columns: Columns (*shape) by name; those that lack have the value of the feature.
            valid: True for real entries (*shape).

        Returns:
            (*shape, F) in float32; zero where nothing is real.

        Raises:
            DataError: If float32 cannot hold a value.
        """
        stacked = np.zeros((*valid.shape, len(features)), np.float32)
        for place, feature in enumerate(features):
            values = columns.get(feature.name)
            if values is None:
                stacked[..., place] = np.where(valid, feature.missing, 0)
            else:
                stacked[..., place] = self._to_float32(feature.name, values, valid)
        return torch.from_numpy(stacked)

    def arrange(
        self,
        kind: str,
        objects: ObjectTable,
        features: Sequence[Feature],
        momentum: Momentum | None,
        num_slots: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Put the objects of a kind into slots: by falling pt, where their momentum is known.

        Args:
            kind: What messages call the kind.
            objects: The objects.
            features: The columns to take, in order.
            momentum: Columns with the momentum; null where it is not known.
            num_slots: Number of slots; of more objects the first ones stay.

        Returns:
            Which slots are real (J, S), four-vectors (J, S, 4) and columns (J, S, F).

        Raises:
            DataError: If float32 cannot hold a value.
        """
        columns = dict(objects.columns)
        vectors = np.zeros((*objects.valid.shape, 4))  # (J, P, 4)
        if momentum is not None:
            vectors = np.where(objects.valid[..., None], momentum.vectors(columns), 0)
            for feature in features:
                if feature.name in DERIVED and feature.name not in columns:
                    columns[feature.name] = derive(vectors, feature.name)
        order = _find_leading(objects.valid, vectors, num_slots)  # (J, S or fewer)
        valid = np.take_along_axis(objects.valid, order, 1)
        chosen = {name: np.take_along_axis(values, order, 1) for name, values in columns.items()}
        vectors = np.take_along_axis(vectors, order[..., None], 1)
        vectors = self._to_float32("momentum", vectors, valid[..., None], kind)
        more = (0, num_slots - valid.shape[1])
        return (
            pad(torch.from_numpy(valid), more),
            pad(torch.from_numpy(vectors), (0, 0, *more)),
            pad(self.stack(features, chosen, valid), (0, 0, *more)),
        )

    def _to_float32(
        self, name: str, values: np.ndarray, valid: np.ndarray, kind: str | None = None
    ) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # padding may hold anything
            x = np.where(valid, values.astype(np.float32), np.float32(0))
        exact = np.isfinite(x)
        if values.dtype.kind in "iu":
            exact &= ~valid | (x.astype(np.float64) == values)
        if not exact.all():
            place = np.unravel_index(int(np.argmin(exact)), x.shape)
            raise DataError.of(
                f"{self.source}, event {self.index[place[0]]}",
                name if kind is None else f"{kind}: {name}",
                found=values[place],
                expected="a finite value that float32 can hold, for whole numbers exactly",
            )
        return x


def _find_leading(valid: np.ndarray, vectors: np.ndarray, num_slots: int) -> np.ndarray:
    """Places of the real objects by falling pt, and behind them padding (J, S or fewer)."""
    # Zeros for kinds without momentum: the sort is stable and keeps the order of the file.
    pt = np.hypot(vectors[..., 1], vectors[..., 2])  # (J, P)
    key = np.where(valid, -pt, np.inf)
    return np.argsort(key, axis=1, kind="stable")[:, :num_slots]
