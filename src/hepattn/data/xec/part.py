"""Which events of a source belong to a part of a split."""

# J events

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.events.split import EventPart
from hepattn.data.xec.source import XecSource


def chosen_rows(source: XecSource, part: EventPart | None) -> np.ndarray:
    """Whether each event belongs to a part (J).

    Args:
        source: The events.
        part: The part, by the column ``event_number`` (run and event) or ``run``; null for all.

    Raises:
        DataError: If none does, or the part is for another column.
    """
    if part is None:
        return np.full(source.num_events, True)
    numbers = source.numbers()
    if wrong := part.columns - numbers.keys():
        raise DataError.of(
            "data.split",
            "column",
            found=", ".join(wrong),
            expected=f"one of {', '.join(numbers)}, or null for the row",
        )
    held = part.holds(numbers, np.arange(source.num_events))
    if not held.any():
        raise DataError.of(
            source.name,
            f"part {part.name}",
            found=f"none of the {source.num_events} events",
            expected="at least one",
            remedy="take another seed, other shares or more events",
        )
    return held
