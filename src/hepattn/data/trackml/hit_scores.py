"""Scores of a hit filter, which say what hits of an event are read."""

# R rows of the file, E events, N hits

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hepattn.data.error import DataError
from hepattn.data.trackml.table import find_rows

FORMATS = (".parquet", ".h5", ".hdf5")
KINDS = {"event": "iu", "hit_id": "iu", "score": "f", "keep": "b"}
"""Columns of the file and the kinds of their numpy types."""

PREDICT = "write them with the filter's `predict`, which covers every event; a `test` does not"


@dataclass(frozen=True)
class HitScores:
    """What a hit filter thinks of the hits of many events.

    Args:
        path: File that the prediction of a hit filter wrote: ``.parquet`` or ``.h5`` with the
            columns ``event``, ``hit_id``, ``score`` and ``keep``, in any order of the rows.
        threshold: Hits are kept from this score on, in (0, 1); null keeps those that the filter
            marked by ``keep``.

    Raises:
        ValueError: If the path names no known format or the threshold is out of range.
    """

    path: str
    threshold: float | None = None

    def __post_init__(self) -> None:
        if Path(self.path).suffix not in FORMATS:
            raise ValueError(f"path={self.path} of hit scores must end in {' or '.join(FORMATS)}")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(f"threshold={self.threshold} of hit scores must be in (0, 1)")


class KeptHits:
    """The hits that a filter keeps, by event and hit id.

    It holds one id and one bool a hit, sorted; workers of a loader that are forked share them.

    Args:
        event: Numbers of the events (R,).
        hit_id: Ids of the hits in their events (R,).
        keep: True for hits to keep (R,) bool.
        label: Name of the file, for messages.

    Raises:
        DataError: If a hit comes twice.
    """

    def __init__(self, event: np.ndarray, hit_id: np.ndarray, keep: np.ndarray, label: str) -> None:
        rises = (event[1:] > event[:-1]) | ((event[1:] == event[:-1]) & (hit_id[1:] > hit_id[:-1]))
        if not rises.all():
            order = np.lexsort((hit_id, event))
            event, hit_id, keep = event[order], hit_id[order], keep[order]
            twice = (event[1:] == event[:-1]) & (hit_id[1:] == hit_id[:-1])
            if twice.any():
                row = int(np.argmax(twice))
                raise DataError.of(
                    label,
                    "event, hit_id",
                    found=f"hit {hit_id[row]} of event {event[row]} more than once",
                    expected="each hit of an event once",
                )
        self.label = label
        changes = np.flatnonzero(event[1:] != event[:-1]) + 1
        self._ends = np.concatenate([[0], changes, [len(event)]])  # (E + 1,)
        self.event = event[self._ends[:-1]] if len(event) else event  # (E,)
        self._hit_id = hit_id
        self._keep = keep

    @classmethod
    def load(cls, scores: HitScores) -> Self:
        """Read the file.

        Raises:
            DataError: If it can't be read, lacks a column, or has a column of another type, a
                value that is absent or not finite, or a hit twice.
        """
        path, cut = Path(scores.path), scores.threshold
        event, hit_id = read_column(path, "event"), _shrink(read_column(path, "hit_id"))
        score = read_column(path, "score")  # checked even where it does not decide
        keep = read_column(path, "keep") if cut is None else score >= cut
        lengths = [len(values) for values in (event, hit_id, score, keep)]
        if len(set(lengths)) > 1:
            raise DataError.of(path, "columns", found=f"lengths {lengths}", expected="one length")
        return cls(event, hit_id, keep, str(path))

    def __contains__(self, event: int) -> bool:
        return len(self._rows(event)) > 0

    def num_kept(self, event: int) -> int:
        """Number of hits of an event that are kept; 0 for an event without scores."""
        rows = self._rows(event)
        return int(self._keep[rows.start : rows.stop].sum())

    def select(self, event: int, hit_id: np.ndarray) -> np.ndarray:
        """Say which hits of an event are kept.

        Args:
            event: The event's number.
            hit_id: The hits to decide on (N,).

        Returns:
            True for those that are kept (N,) bool.

        Raises:
            DataError: If one of them has no score.
        """
        rows = self._rows(event)
        if len(hit_id) and not rows:
            raise DataError.of(
                self.label,
                "event",
                found=f"no scores of event {event}, only those of {len(self.event)} others",
                expected="scores of every event that is read",
                remedy=PREDICT,
            )
        place = find_rows(self._hit_id[rows.start : rows.stop], hit_id)  # (N,)
        if (place < 0).any():
            absent = hit_id[place < 0]
            raise DataError.of(
                self.label,
                "hit_id",
                found=f"no scores of {len(absent)} hits of event {event}, first {absent[0]}",
                expected="a score of each hit in the volumes that are read",
                remedy="predict the scores with the same data.selection.volumes",
            )
        return self._keep[rows.start + place]

    def fingerprint(self) -> str:
        """Short hash of what is kept of what, wherever the file lies and whatever its format."""
        digest = hashlib.sha256()
        for values in (self.event, self._ends, self._hit_id, self._keep):
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()[:16]

    def _rows(self, event: int) -> range:
        place = int(np.searchsorted(self.event, event))
        if place == len(self.event) or self.event[place] != event:
            return range(0)
        return range(int(self._ends[place]), int(self._ends[place + 1]))


def read_column(path: Path, name: str) -> np.ndarray:
    """Read one column of a file of scores (R,); integers come as int64.

    Raises:
        DataError: If the file can't be read, or the column is missing, of another type, or holds
            values that are absent or not finite.
    """
    try:
        table = _read_parquet(path, name) if path.suffix == ".parquet" else _read_hdf5(path, name)
    except FileNotFoundError as error:
        raise DataError.of(
            path, "hit scores", found="no such file", expected="a file of scores", remedy=PREDICT
        ) from error
    except (OSError, pa.ArrowException, ValueError, TypeError) as error:
        raise DataError.of(
            path, "hit scores", found=str(error)[:300], expected="a readable file of scores"
        ) from error
    if name not in table.column_names:
        raise DataError.of(
            path, f"column {name}", found="no such column", expected=list(KINDS), remedy=PREDICT
        )
    column = table.column(name)
    if column.null_count:
        raise DataError.of(
            path, name, found=f"{column.null_count} rows without a value", expected="none"
        )
    values = column.to_numpy()
    if values.dtype.kind not in KINDS[name]:
        kinds = {"iu": "integers", "f": "floating-point numbers", "b": "true or false"}
        raise DataError.of(
            path, f"column {name}", found=values.dtype.name, expected=kinds[KINDS[name]]
        )
    if KINDS[name] == "f" and not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise DataError.of(
            path, name, found=f"{values[row]} in data row {row + 1}", expected="finite values"
        )
    return values.astype(np.int64, copy=False) if KINDS[name] == "iu" else values


def _read_parquet(path: Path, name: str) -> pa.Table:
    with path.open("rb") as file:
        source = pq.ParquetFile(file)
        return source.read([name], use_threads=False)  # a name that it lacks is left out


def _read_hdf5(path: Path, name: str) -> pa.Table:
    with h5py.File(path) as file:
        return pa.table({name: file[name][:]} if name in file else {})


def _shrink(ids: np.ndarray) -> np.ndarray:
    """The same ids in 32 bits, if these hold them all."""
    limits = np.iinfo(np.int32)
    fits = not len(ids) or (ids.min() >= limits.min and ids.max() <= limits.max)
    return ids.astype(np.int32) if fits else ids
