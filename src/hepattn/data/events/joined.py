"""Events of several files, and of files that hold one process each."""

# J events

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.events.source import Columns, EventSource
from hepattn.data.events.table import EventTable, concatenate
from hepattn.data.events.write import LABEL


class EventFiles(EventSource):
    """Several files, one after the other, with the columns that all of them have.

    Args:
        parts: The files.

    Raises:
        DataError: If two of them number their processes differently.
    """

    def __init__(self, parts: Sequence[EventSource]) -> None:
        self.parts = tuple(parts)
        self.files = tuple(file for part in parts for file in part.files)
        self.classes = _merge_classes(parts)
        kinds = [kind for kind in parts[0].columns.objects if _all_have(parts, kind)]
        self.columns = Columns(
            frozenset.intersection(*(part.columns.events for part in parts)),
            {
                kind: frozenset.intersection(*(part.columns.objects[kind] for part in parts))
                for kind in kinds
            },
        )
        self.ends = list(itertools.accumulate(part.num_events for part in parts))
        self.num_events = self.ends[-1]

    @property
    def block_ends(self) -> np.ndarray:
        """Ends of the blocks of all files."""
        starts = [0, *self.ends[:-1]]
        ends = [start + part.block_ends for start, part in zip(starts, self.parts, strict=True)]
        return np.concatenate(ends)

    def require(self, columns: Columns) -> None:
        """Refuse columns that a file lacks; see ``EventSource.require``."""
        for part in self.parts:
            part.require(columns)

    def read(self, start: int, stop: int, columns: Columns) -> EventTable:
        """Read and check some events, perhaps of several files; see ``EventSource.read``."""
        self.check_rows(start, stop)
        tables = []
        number = min(bisect.bisect_right(self.ends, start), len(self.parts) - 1)
        while True:
            part = self.parts[number]
            first = self.ends[number] - part.num_events
            end = min(stop, self.ends[number])
            table = part.read(start - first, end - first, columns)
            tables.append(replace(table, index=table.index + first))
            if end == stop:
                return concatenate(tables)
            start, number = end, number + 1


class ProcessEvents(EventSource):
    """Events that are all of one process, whose number becomes the column ``label``.

    Args:
        source: The events.
        process: Name of the process.
        classes: Number of each process by its name.

    Raises:
        DataError: If the events have such a column already.
    """

    def __init__(self, source: EventSource, process: str, classes: Mapping[str, int]) -> None:
        if LABEL in source.columns.events:
            raise DataError.of(
                source.name,
                LABEL,
                found=f"a column beside the process {process} that the path names",
                expected="one of both",
                remedy="give the files as a list",
            )
        self.source = source
        self.number = classes[process]
        self.classes = classes
        self.columns = replace(source.columns, events=source.columns.events | {LABEL})
        self.num_events, self.files = source.num_events, source.files

    @property
    def block_ends(self) -> np.ndarray:
        """Ends of the blocks."""
        return self.source.block_ends

    def require(self, columns: Columns) -> None:
        """Refuse columns that there are not; see ``EventSource.require``."""
        self.source.require(replace(columns, events=columns.events - {LABEL}))

    def read(self, start: int, stop: int, columns: Columns) -> EventTable:
        """Read and check some events; see ``EventSource.read``."""
        stored = replace(columns, events=columns.events - {LABEL})
        table = self.source.read(start, stop, stored)
        if LABEL in columns.events:
            table.events[LABEL] = np.full(stop - start, self.number)
        return table


def _all_have(parts: Sequence[EventSource], kind: str) -> bool:
    return all(kind in part.columns.objects for part in parts)


def _merge_classes(parts: Sequence[EventSource]) -> dict[str, int]:
    """Processes of all files, each with one name and one number."""
    merged: dict[str, int] = {}
    for part in parts:
        for name, number in part.classes.items():
            if merged.get(name, number) != number or (
                name not in merged and number in merged.values()
            ):
                raise DataError.of(
                    part.name,
                    "classes",
                    found=f"{name}: {number}",
                    expected=f"numbers as in the files before: {merged}",
                )
            merged[name] = number
    return merged
