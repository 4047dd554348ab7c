"""Tracks on disk, in the format of the TrackML challenge: ``event_id,hit_id,track_id``.

A submission holds every hit of each of its events once. Tracks have numbers from 1 in their
event; 0 is for hits in no track.
"""

# N hits of an event, H given hits

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from hepattn.data.error import DataError
from hepattn.data.trackml.event import Event, EventSource, event_number
from hepattn.data.trackml.table import Schema, check_known, check_unique, find_rows, read_table

SUBMISSION: Schema = dict.fromkeys(("event_id", "hit_id", "track_id"), np.int64)


class SubmissionWriter:
    """Write a submission event by event, so that memory stays flat.

    The file appears under its name only when it is complete. As a context manager it closes
    itself, and removes what is incomplete after an error.

    Args:
        path: File to write; its folder is made.
        source: The events, which know all of their hits.

    Raises:
        DataError: If the file exists already or cannot be written.
    """

    def __init__(self, path: str | Path, source: EventSource) -> None:
        self.path = Path(path)
        self.source = source
        self.events: set[int] = set()
        self._place = {event_number(name): place for place, name in enumerate(source.names)}
        self._refuse_to_replace()
        self._part = self.path.with_name(f"{self.path.name}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb")
        except OSError as error:
            raise DataError(f"{self.path}: the file cannot be written: {error}") from error
        self._file.write(f"{','.join(SUBMISSION)}\n".encode())

    def add(self, event: int, hit_id: np.ndarray, track: np.ndarray) -> None:
        """Write the tracks of one event.

        Args:
            event: Number of the event.
            hit_id: Ids of hits of the event, in any order (H,); the others are in no track.
            track: Track of each of them, negative for none (H,); renumbered from 1 by value.

        Raises:
            DataError: If the event is unknown or was added before, or a hit is unknown or given
                twice.
        """
        label = f"{self.path}: event {event}"
        if event not in self._place:
            raise DataError.of(
                label,
                "event_id",
                found="an unknown event",
                expected=f"one of the {len(self._place)} events of {self.source.path}",
            )
        if event in self.events:
            raise DataError.of(label, "event_id", found="it twice", expected="each event once")
        hits = self.source.read(self._place[event]).hits["hit_id"]  # (N,)
        check_unique(hit_id, "hit_id", label)
        rows = find_rows(hits, hit_id)
        check_known(rows, hit_id, "hit_id", label, str(self.source.path))
        assigned = track >= 0
        number = np.zeros(len(hits), dtype=np.int64)
        _, compact = np.unique(track[assigned], return_inverse=True)
        number[rows[assigned]] = compact + 1
        columns = (np.full_like(hits, event), hits, number)
        table = pa.table(dict(zip(SUBMISSION, columns, strict=True)))
        pa_csv.write_csv(table, self._file, pa_csv.WriteOptions(include_header=False))
        self.events.add(event)

    def close(self) -> None:
        """Give the complete file its name.

        Raises:
            DataError: If another file has got it meanwhile; this one keeps ``.part`` in its name.
        """
        if self._file.closed:
            return
        self._file.close()
        self._refuse_to_replace()
        self._part.replace(self.path)

    def discard(self) -> None:
        """Remove the incomplete file."""
        if not self._file.closed:
            self._file.close()
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close() if kind is None else self.discard()

    def _refuse_to_replace(self) -> None:
        if self.path.exists():
            raise DataError.of(
                self.path,
                "file",
                found="an earlier one",
                expected="a new name",
                remedy="move it, or choose another name",
            )


def write_submission(
    path: str | Path, source: EventSource, tracks: Iterable[tuple[int, np.ndarray, np.ndarray]]
) -> None:
    """Write a submission of the events that come.

    Args:
        path: File to write.
        source: The events.
        tracks: Number of an event, ids of its hits and their tracks, as
            ``SubmissionWriter.add`` takes them.

    Raises:
        DataError: If the file exists already, or an event or a hit is unknown or comes twice.
    """
    with SubmissionWriter(path, source) as writer:
        for event, hit_id, track in tracks:
            writer.add(event, hit_id, track)


def read_submission(path: str | Path, source: EventSource) -> Iterator[tuple[Event, np.ndarray]]:
    """Read a submission of all events of a source, in their order.

    Args:
        path: The file.
        source: The events.

    Yields:
        An event and the track of each of its hits (N,), in the order of its hits; -1 for none.

    Raises:
        DataError: If the file is unreadable, its events are not those of the source, or a hit is
            missing, unknown or there twice.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read: {error}") from error
    columns = read_table(content, SUBMISSION, str(path))
    event_id = columns["event_id"]
    order = np.argsort(event_id, kind="stable")
    numbers = np.array([event_number(name) for name in source.names])
    _check_same(np.unique(event_id), numbers, "event_id", str(path), str(source.path))
    starts = np.searchsorted(event_id[order], numbers, side="left")
    ends = np.searchsorted(event_id[order], numbers, side="right")
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        event = source.read(index)
        rows = order[start:end]
        hit_id, track_id = columns["hit_id"][rows], columns["track_id"][rows]
        hits, label = event.hits["hit_id"], f"{path}: event {event.number}"
        check_unique(hit_id, "hit_id", label)
        _check_same(hit_id, hits, "hit_id", label, str(source.path))
        track = track_id[find_rows(hit_id, hits)]
        yield event, np.where(track > 0, track, -1)


def _check_same(
    found: np.ndarray, expected: np.ndarray, field: str, label: str, where: str
) -> None:
    """Raise if a key is unknown or missing."""
    check_known(find_rows(expected, found), found, field, label, where)
    missing = expected[find_rows(found, expected) < 0]
    if len(missing):
        raise DataError.of(
            label,
            field,
            found=f"no row for {len(missing)} of {len(expected)} values, first {missing[0]}",
            expected=f"every value of {where}",
        )
