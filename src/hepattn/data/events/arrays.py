"""Events in arrays at hand, such as those of an analysis in Python."""

# J events, P slots of a kind

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from hepattn.data.error import DataError
from hepattn.data.events.source import Columns, EventFile
from hepattn.data.events.table import EventTable, ObjectTable

Arrays = Mapping[str, ArrayLike]


class ArrayEvents(EventFile):
    """Events in arrays, to be scored: their processes are not known.

    Args:
        events: Columns of the events (J) by name; none by default.
        objects: For each kind of object its columns (J, P) by name, P for each kind its own; none
            by default.
        valid: For each kind, True for real objects (J, P), in any order.

    Raises:
        DataError: If there are no arrays, shapes differ, or ``valid`` names other kinds.
    """

    def __init__(
        self,
        events: Arrays | None = None,
        objects: Mapping[str, Arrays] | None = None,
        valid: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        super().__init__(Path("arrays"))
        self.events = {name: np.asarray(values) for name, values in (events or {}).items()}
        self.valid = {kind: np.asarray(real) for kind, real in (valid or {}).items()}
        self.objects = {
            kind: {name: np.asarray(values) for name, values in columns.items()}
            for kind, columns in (objects or {}).items()
        }
        if self.objects.keys() != self.valid.keys():
            raise DataError.of(
                self.path, "valid", found=list(self.valid), expected=f"{list(self.objects)}"
            )
        self.num_events = self._count()
        for kind, real in self.valid.items():
            if real.ndim != 2 or len(real) != self.num_events or real.dtype != bool:
                self._refuse(f"valid of {kind}", real, f"bool ({self.num_events}, slots)")
        for name, values, shape in self._columns():
            if values.shape != shape or values.dtype.kind not in "biuf":
                self._refuse(name, values, f"numbers {shape}")
        self.classes = {}
        self.columns = Columns(
            frozenset(self.events), {kind: frozenset(of) for kind, of in self.objects.items()}
        )

    def _count(self) -> int:
        for values in (*self.events.values(), *self.valid.values()):
            if values.ndim and len(values):
                return len(values)
        raise DataError.of(self.path, "events", found="none", expected="at least one")

    def _columns(self) -> Iterator[tuple[str, np.ndarray, tuple[int, ...]]]:
        """Name, values and expected shape of every array."""
        for name, values in self.events.items():
            yield name, values, (self.num_events,)
        for kind, columns in self.objects.items():
            for name, values in columns.items():
                yield f"{kind}: {name}", values, self.valid[kind].shape

    def _refuse(self, name: str, values: np.ndarray, expected: str) -> None:
        found = f"{values.dtype} {values.shape}"
        raise DataError.of(self.path, name, found=found, expected=expected)

    @property
    def block_ends(self) -> np.ndarray:
        """Every row: all are in memory."""
        return np.arange(1, self.num_events + 1)

    def read_raw(self, start: int, stop: int, columns: Columns) -> EventTable:
        """Read some events; see ``EventFile.read_raw``."""
        rows = slice(start, stop)
        objects = {
            kind: ObjectTable(
                self.valid[kind][rows],
                {name: self.objects[kind][name][rows] for name in names},
            )
            for kind, names in columns.objects.items()
        }
        events = {name: self.events[name][rows] for name in columns.events}
        return EventTable(events, objects, np.arange(start, stop))

    def fingerprint(self) -> str:
        """Hash of the arrays."""
        parts = [*self.valid.values(), *(values for _, values, _ in self._columns())]
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]
