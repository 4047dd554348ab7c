"""Events with their objects, as columns of a file."""

# J events, P slots of a kind

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ObjectTable:
    """Objects of one kind.

    Args:
        valid: True for real objects (J, P); real and padded ones in any order.
        columns: Columns (J, P) by name, of any type; padded slots hold anything.
    """

    valid: np.ndarray
    columns: dict[str, np.ndarray]

    def widen(self, num_slots: int) -> ObjectTable:
        """Pad to more slots.

        Args:
            num_slots: How many, at least those there are.
        """
        more = ((0, 0), (0, num_slots - self.valid.shape[1]))
        return ObjectTable(
            np.pad(self.valid, more),
            {name: np.pad(values, more) for name, values in self.columns.items()},
        )


@dataclass(frozen=True)
class EventTable:
    """Some events of a source.

    Args:
        events: Columns of the events (J) by name, of any type.
        objects: The objects by their kind.
        index: Row in the source (J).
    """

    events: dict[str, np.ndarray]
    objects: dict[str, ObjectTable]
    index: np.ndarray


def concatenate(tables: Sequence[EventTable]) -> EventTable:
    """Put tables with the same columns one after the other.

    Args:
        tables: At least one.
    """
    if len(tables) == 1:
        return tables[0]
    first = tables[0]
    objects = {}
    for kind in first.objects:
        parts = [table.objects[kind] for table in tables]
        num_slots = max(part.valid.shape[1] for part in parts)
        parts = [part.widen(num_slots) for part in parts]
        objects[kind] = ObjectTable(
            np.concatenate([part.valid for part in parts]),
            {
                name: np.concatenate([part.columns[name] for part in parts])
                for name in first.objects[kind].columns
            },
        )
    return EventTable(
        {name: np.concatenate([table.events[name] for table in tables]) for name in first.events},
        objects,
        np.concatenate([table.index for table in tables]),
    )
