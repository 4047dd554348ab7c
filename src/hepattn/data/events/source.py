"""What every file of events can do."""

# J events, P slots of a kind

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.events.table import EventTable
from hepattn.data.files import fingerprint_files, name_files


@dataclass(frozen=True)
class Columns:
    """Names of columns of events and of the objects in them.

    Args:
        events: Columns of the events.
        objects: Columns of the objects of each kind.
    """

    events: frozenset[str] = frozenset()
    objects: Mapping[str, frozenset[str]] = field(default_factory=dict)


class EventSource(ABC):
    """Events in files, read in pieces.

    Attributes:
        classes: Number of each process by its name, as the files say; empty where they do not.
        columns: Names of the columns that there are.
        num_events: Number of events.
        files: Where they are.
    """

    classes: Mapping[str, int]
    columns: Columns
    num_events: int
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        """How messages call the source."""
        return name_files(self.files)

    @property
    @abstractmethod
    def block_ends(self) -> np.ndarray:
        """Rows at which a stored block ends, in order; the last one is ``num_events``.

        To read a part of a block takes as long as to read all of it.
        """

    @abstractmethod
    def require(self, columns: Columns) -> None:
        """Refuse columns that there are not.

        Args:
            columns: Those needed.

        Raises:
            DataError: If one is missing, with the names of those that there are.
        """

    @abstractmethod
    def read(self, start: int, stop: int, columns: Columns) -> EventTable:
        """Read and check some events.

        Args:
            start: First row.
            stop: Row after the last.
            columns: Those to read.

        Raises:
            DataError: If they cannot be read, lack a column or hold values that are not finite.
        """

    def check_rows(self, start: int, stop: int) -> None:
        """Refuse rows that there are not.

        Args:
            start: First row.
            stop: Row after the last.

        Raises:
            ValueError: If they do not lie within the source.
        """
        if not 0 <= start <= stop <= self.num_events:
            raise ValueError(f"rows {start} to {stop} must lie within {self.num_events} events")

    def fingerprint(self) -> str:
        """Hash of the names and sizes of the files, and of their number of events."""
        return fingerprint_files(self.files, self.num_events)


class EventFile(EventSource):
    """One file. A format says how to read its columns; the checks are the same for all.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = (path,)

    @abstractmethod
    def read_raw(self, start: int, stop: int, columns: Columns) -> EventTable:
        """Read some events without checks of their values.

        Args:
            start: First row, also the first of ``index``.
            stop: Row after the last.
            columns: Those to read, all of which there are.
        """

    def require(self, columns: Columns) -> None:
        """Refuse columns that there are not; see ``EventSource.require``."""
        self._require("events", columns.events, self.columns.events)
        for kind, names in columns.objects.items():
            if kind not in self.columns.objects:
                raise DataError.of(
                    self.path,
                    "kinds of objects",
                    found=f"no {kind}",
                    expected=f"kinds among {', '.join(self.columns.objects) or 'none'}",
                )
            self._require(kind, names, self.columns.objects[kind])

    def read(self, start: int, stop: int, columns: Columns) -> EventTable:
        """Read and check some events; see ``EventSource.read``."""
        self.check_rows(start, stop)
        self.require(columns)
        table = self.read_raw(start, stop, columns)
        for name, values in table.events.items():
            self._check_finite(name, values, None, start)
        for kind, objects in table.objects.items():
            for name, values in objects.columns.items():
                self._check_finite(f"{kind}.{name}", values, objects.valid, start)
        return table

    def set_rows(self, num_events: int) -> None:
        """Set the number of events.

        Args:
            num_events: How many.

        Raises:
            DataError: If there are none.
        """
        if not num_events:
            raise DataError.of(self.path, "events", found="an empty file", expected="at least one")
        self.num_events = num_events

    def unreadable(self, error: Exception) -> DataError:
        """The one error for whatever a format's library says of a damaged file."""
        return DataError.of(
            self.path,
            "contents",
            found=f"{type(error).__name__}: {error}"[:300],
            expected="a complete file of this format",
            remedy="fetch the file again",
        )

    def _require(self, place: str, wanted: Collection[str], there: Collection[str]) -> None:
        if missing := sorted(set(wanted) - set(there)):
            raise DataError.of(
                self.path,
                f"columns of {place}",
                found=f"no {', '.join(missing)}",
                expected=f"columns among {', '.join(sorted(there))}",
            )

    def _check_finite(
        self, name: str, values: np.ndarray, valid: np.ndarray | None, start: int
    ) -> None:
        if values.dtype.kind != "f":
            return
        wrong = ~np.isfinite(values)
        if valid is not None:
            wrong &= valid
        if wrong.any():
            place = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            raise DataError.of(
                f"{self.path}, event {start + int(place[0])}",
                name,
                found=values[place],
                expected="finite values",
                remedy="leave the column or such events out of the file",
            )
