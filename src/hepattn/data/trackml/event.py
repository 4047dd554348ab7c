"""One event as its tables, and what every source of events offers."""

# N hits, P particles

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

Columns = dict[str, np.ndarray]
"""A table: one array a column, all of the same length."""

EVENT_NAME = re.compile(r"event(\d{9,18})")


def event_number(name: str) -> int:
    """The number in an event's name: 1000 for ``event000001000``.

    Raises:
        ValueError: If the name is not ``event`` and at least nine digits.
    """
    match = EVENT_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"event name {name!r} must be 'event' and at least nine digits")
    return int(match.group(1))


@dataclass(frozen=True)
class Event:
    """The tables of one event.

    Integers are int64. Lengths are in mm, momenta in GeV.

    Args:
        name: Name such as ``event000001000``.
        hits: One row a hit, in the order of the file: ``hit_id, x, y, z, volume_id, layer_id,
            module_id``; with truth also ``particle_id, tx, ty, tz, tpx, tpy, tpz, weight``; with
            cells also the columns of ``clusters``. Its floats are float32.
        particles: One row a particle: ``particle_id, vx, vy, vz, px, py, pz, q`` in float64, or
            None.
    """

    name: str
    hits: Columns
    particles: Columns | None = None

    @property
    def number(self) -> int:
        """The number in the name."""
        return event_number(self.name)

    @property
    def num_hits(self) -> int:
        """Number of hits."""
        return len(self.hits["hit_id"])

    @property
    def has_truth(self) -> bool:
        """Whether targets can be made: the truth of the hits and the particles are there."""
        return "particle_id" in self.hits and self.particles is not None


class EventSource(Protocol):
    """Events in a folder, a zip or a store, in ascending order of their numbers."""

    @property
    def path(self) -> Path:
        """Where the events lie."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the events."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Event:
        """Read and check one event.

        Raises:
            DataError: If its files are missing, unreadable or inconsistent.
        """

    def num_hits(self, index: int) -> int:
        """Number of hits of an event without reading all of it, to sort events by length."""

    def fingerprint(self) -> str:
        """Short hash of the names and sizes of the raw files, to record what was read."""
