"""The prepared form of TrackML events: two parquet files an event and a table of contents."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hepattn.data.error import DataError
from hepattn.data.trackml.clusters import CHARGE_COLUMNS, SHAPE_COLUMNS
from hepattn.data.trackml.event import EVENT_NAME, Columns, Event, EventSource, event_number
from hepattn.data.trackml.reader import CsvEvents
from hepattn.data.trackml.table import HITS, PARTICLES, TRUTH, Schema, to_columns

CONTENTS = "store.json"
FORMAT = "hepattn-trackml"
VERSION = 1
OPTIONAL: Schema = dict(TRUTH) | dict.fromkeys((*CHARGE_COLUMNS, *SHAPE_COLUMNS), np.float32)
"""Columns that the hits of an event may have."""

HASH_KEY = b"hepattn_source"  # in each hits file: hash of the raw files behind it


@dataclass
class Contents:
    """The table of contents of a store.

    Args:
        source: Where the raw files were.
        fingerprint: Hash of the names and sizes of the raw files.
        complete: Whether every event of the source was prepared or skipped.
        events: Number of hits, and whether there are particles, of each event.
        skipped: Why an event was skipped.
    """

    source: str
    fingerprint: str
    complete: bool = False
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """As the text of ``store.json``."""
        return json.dumps({"format": FORMAT, "version": VERSION} | asdict(self), indent=1) + "\n"

    @classmethod
    def load(cls, store: Path) -> Self:
        """Read and check ``store.json``.

        Args:
            store: Folder of the store.

        Raises:
            DataError: If it is not the contents of a store of this version.
        """
        path = store / CONTENTS
        try:
            raw = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError.of(path, "JSON", found=error, expected="a readable file") from error
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise DataError.of(path, "format", found="another file", expected=FORMAT)
        if raw.get("version") != VERSION:
            raise DataError.of(
                path,
                "version",
                found=raw.get("version"),
                expected=VERSION,
                remedy="prepare the events again into a new folder",
            )
        try:
            contents = cls(**{k: v for k, v in raw.items() if k not in ("format", "version")})
            contents._check()
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise DataError.of(
                path,
                "entries",
                found=f"{type(error).__name__}: {error}",
                expected="the entries that prepare writes",
                remedy="prepare the events again into a new folder",
            ) from error
        return contents

    def _check(self) -> None:
        """Raise one of Python's errors if an entry has the wrong type."""
        for name, entry in self.events.items():
            if EVENT_NAME.fullmatch(name) is None:
                raise ValueError(f"event name {name!r}")
            if type(entry["num_hits"]) is not int or type(entry["particles"]) is not bool:
                raise TypeError(f"{entry} of {name}")
        for name, value in (("fingerprint", self.fingerprint), ("source", self.source)):
            if not isinstance(value, str):
                raise TypeError(f"{name}={value!r}")
        if type(self.complete) is not bool or not isinstance(self.skipped, dict):
            raise TypeError("complete or skipped")


class StoredEvents:
    """Events of a store that ``prepare`` made.

    Args:
        path: Folder of the store.

    Raises:
        DataError: If it is not a complete store, or holds no events.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.contents = Contents.load(self.path)
        if not self.contents.complete or not self.contents.events:
            raise DataError.of(
                self.path / CONTENTS,
                "events",
                found=f"{len(self.contents.events)} events of an unfinished preparation",
                expected="a complete store with at least one event",
                remedy="run the preparation again; it continues where it stopped",
            )
        self.names = tuple(sorted(self.contents.events, key=event_number))

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Event:
        """Read one event.

        Args:
            index: Position in ``names``.

        Raises:
            DataError: If a file is missing, unreadable or lacks columns.
        """
        name = self.names[index]
        entry = self.contents.events[name]
        hits = read_parquet(hits_path(self.path, name), HITS)
        if len(hits["hit_id"]) != entry["num_hits"]:
            raise DataError.of(
                hits_path(self.path, name),
                "rows",
                found=len(hits["hit_id"]),
                expected=f"{entry['num_hits']} as in {CONTENTS}",
            )
        particles = None
        if entry["particles"]:
            particles = read_parquet(particles_path(self.path, name), PARTICLES)
        return Event(name, hits, particles)

    def num_hits(self, index: int) -> int:
        """Number of hits of an event."""
        return self.contents.events[self.names[index]]["num_hits"]

    def fingerprint(self) -> str:
        """Short hash of the names and sizes of the raw files that the store was made from."""
        return self.contents.fingerprint


def hits_path(store: Path, name: str) -> Path:
    """Path of the hits of an event, truth and clusters included."""
    return store / f"{name}-hits.parquet"


def particles_path(store: Path, name: str) -> Path:
    """Path of the particles of an event."""
    return store / f"{name}-particles.parquet"


def to_parquet(columns: Columns, path: Path, source_hash: str) -> None:
    """Write columns and the hash of the raw files behind them."""
    table = pa.table(columns).replace_schema_metadata({HASH_KEY: source_hash.encode()})
    pq.write_table(table, path, compression="zstd")


def read_parquet(path: Path, needed: Schema) -> Columns:
    """Read a parquet file and check its columns.

    Args:
        path: The file.
        needed: Names and types of columns that must be there.

    Raises:
        DataError: If it is missing, damaged or lacks a column.
    """
    try:
        with path.open("rb") as file:
            table = pq.read_table(file, use_threads=False)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DataError.of(
            path, "parquet", found=str(error)[:300], expected="a readable file"
        ) from error
    names = table.schema.names
    expected = dict(needed) | {name: kind for name, kind in OPTIONAL.items() if name in names}
    for name, kind in expected.items():
        wanted = pa.from_numpy_dtype(kind)
        found = table.schema.field(name).type if names.count(name) == 1 else "no such column"
        if found != wanted:
            raise DataError.of(path, f"column {name}", found=found, expected=wanted)
    return to_columns(table.select([name for name in names if name in expected]), str(path))


def open_events(path: str | Path) -> EventSource:
    """Open a store, a folder of CSV files or a zip of them, whichever the path is.

    Args:
        path: The folder or the zip.

    Raises:
        DataError: If it is none of these or holds no events.
    """
    path = Path(path)
    return StoredEvents(path) if (path / CONTENTS).is_file() else CsvEvents(path)


def fingerprint(source: EventSource | str | Path) -> str:
    """Short hash of the names and sizes of the raw files behind events.

    It says what was read, wherever the files lie, and is the same for raw files and for the
    store made from them. It does not read the contents.

    Args:
        source: The events, or their path.
    """
    return (open_events(source) if isinstance(source, str | Path) else source).fingerprint()
