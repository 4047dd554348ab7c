"""Raw TrackML events: CSV files in a folder or a zip."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.trackml.clusters import charge_columns, shape_columns
from hepattn.data.trackml.detector import Detector
from hepattn.data.trackml.event import Columns, Event, event_number
from hepattn.data.trackml.files import Files, FolderFiles, ZipFiles, hash_sizes
from hepattn.data.trackml.table import (
    CELLS,
    DETECTORS,
    HITS,
    PARTICLES,
    TRUTH,
    Schema,
    check_known,
    check_unique,
    find_rows,
    read_table,
)

TABLE_FILE = re.compile(r"(event\d{9,18})-(hits|cells|particles|truth)\.csv(?:\.gz)?")
DETECTOR_FILES = ("detectors.csv", "detectors.csv.gz")
SCHEMAS: Mapping[str, Schema] = {
    "hits": HITS,
    "truth": TRUTH,
    "particles": PARTICLES,
    "cells": CELLS,
}


class CsvEvents:
    """Events of a folder or a zip of TrackML CSV files.

    The files are ``eventNNNNNNNNN-{hits,cells,particles,truth}.csv`` or ``.csv.gz``; an event
    needs ``hits`` alone. ``detectors.csv[.gz]`` may lie beside them (for a zip: in it, or beside
    it). A zip may hold them in a sub-folder.

    Args:
        path: The folder or the zip.

    Raises:
        DataError: If there are no events, a table has two files, or the modules are unreadable.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise DataError.of(self.path, "path", found="nothing", expected="a folder or a zip")
        self.files: Files = FolderFiles(self.path) if self.path.is_dir() else ZipFiles(self.path)
        self.tables: dict[str, dict[str, str]] = {}
        for file in sorted(self.files.sizes):
            if (match := TABLE_FILE.fullmatch(file)) is None:
                continue
            name, table = match.groups()
            earlier = self.tables.setdefault(name, {}).setdefault(table, file)
            if earlier != file:
                raise DataError.of(
                    self.path,
                    f"{table} of {name}",
                    found=f"{earlier} and {file}",
                    expected="one file a table",
                    remedy="remove one of them",
                )
        self.names = tuple(sorted(self.tables, key=event_number))
        if not self.names:
            raise DataError.of(
                self.path,
                "events",
                found=f"{len(self.files.sizes)} files, none of an event",
                expected="files such as event000001000-hits.csv.gz",
            )
        self.detector = self._read_detector()
        self._num_hits: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Event:
        """Read and check one event.

        Args:
            index: Position in ``names``.

        Raises:
            DataError: If a file is missing, unreadable or contradicts another.
        """
        name = self.names[index]
        hits, label = self._table(name, "hits")
        if not len(hits["hit_id"]):
            raise DataError.of(label, "rows", found="an event without hits", expected="hits")
        check_unique(hits["hit_id"], "hit_id", label)
        particles = None
        if "particles" in self.tables[name]:
            particles, particles_label = self._table(name, "particles")
            check_unique(particles["particle_id"], "particle_id", particles_label)
        columns = hits
        if "truth" in self.tables[name]:
            truth, truth_label = self._table(name, "truth")
            columns = columns | _match_truth(hits, label, truth, truth_label)
            if particles is not None:
                wanted = np.unique(truth["particle_id"][truth["particle_id"] != 0])
                rows = find_rows(particles["particle_id"], wanted)
                check_known(rows, wanted, "particle_id", truth_label, particles_label)
        if "cells" in self.tables[name]:
            columns = columns | self._clusters(name, hits, label)
        return Event(name, columns, particles)

    def num_hits(self, index: int) -> int:
        """Number of lines of the hits file, counted once."""
        if index not in self._num_hits:
            content = self.files.read(self._file(self.names[index], "hits"))
            self._num_hits[index] = max(0, content.rstrip().count(b"\n"))
        return self._num_hits[index]

    def fingerprint(self) -> str:
        """Short hash of the names and sizes of all files of events."""
        return hash_sizes(self._sizes(*self.names))

    def event_fingerprint(self, index: int) -> str:
        """Short hash of the names and sizes of the files behind one event."""
        return hash_sizes(self._sizes(self.names[index]))

    def _read_detector(self) -> Detector | None:
        files = self.files
        found = [name for name in DETECTOR_FILES if name in files.sizes]
        if not found and self.path.is_file():
            files = FolderFiles(self.path.parent)
            found = [name for name in DETECTOR_FILES if name in files.sizes]
        if not found:
            return None
        label = files.label(found[0])
        return Detector(read_table(files.read(found[0]), DETECTORS, label), label)

    def _sizes(self, *names: str) -> dict[str, int]:
        wanted = [file for name in names for file in self.tables[name].values()]
        wanted += [name for name in DETECTOR_FILES if name in self.files.sizes]
        return {file: self.files.sizes[file] for file in wanted}

    def _file(self, name: str, table: str) -> str:
        if table not in self.tables[name]:
            raise DataError.of(
                self.path,
                name,
                found=f"only the tables {sorted(self.tables[name])}",
                expected=f"{name}-{table}.csv[.gz]",
            )
        return self.tables[name][table]

    def _table(self, name: str, table: str) -> tuple[Columns, str]:
        file = self._file(name, table)
        label = self.files.label(file)
        return read_table(self.files.read(file), SCHEMAS[table], label), label

    def _clusters(self, name: str, hits: Columns, hits_label: str) -> Columns:
        cells, label = self._table(name, "cells")
        rows = find_rows(hits["hit_id"], cells["hit_id"])
        check_known(rows, cells["hit_id"], "hit_id", label, hits_label)
        columns = charge_columns(rows, cells, len(hits["hit_id"]))
        if self.detector is not None:
            columns |= shape_columns(rows, cells, hits, self.detector, hits_label)
        for column, values in columns.items():
            if not np.isfinite(values).all():
                raise DataError.of(
                    label, column, found="values beyond float32", expected="finite clusters"
                )
        return columns


def _match_truth(hits: Columns, hits_label: str, truth: Columns, label: str) -> Columns:
    """Bring the truth into the order of the hits, whose ids it must have exactly."""
    check_unique(truth["hit_id"], "hit_id", label)
    rows = find_rows(hits["hit_id"], truth["hit_id"])
    check_known(rows, truth["hit_id"], "hit_id", label, hits_label)
    rows = find_rows(truth["hit_id"], hits["hit_id"])
    check_known(rows, hits["hit_id"], "hit_id", hits_label, label)
    return {name: values[rows] for name, values in truth.items() if name != "hit_id"}
