"""Trees of the liquid-xenon detector in ROOT files."""

# J events, S sensors

import bisect
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import uproot

from hepattn.data.error import DataError
from hepattn.data.files import fingerprint_files, name_files
from hepattn.data.root_tree import open_tree
from hepattn.data.xec.batch import XecBatch, join
from hepattn.physics.xec import NUM_SENSORS

INVALID = 9e9
"""A number of photons or a time above this says that there is none, as NaN does."""
NS_PER_SECOND, MEV_PER_GEV = 1e9, 1e3
NUMBERS = ("run", "event")
SENSORS = {"npho": NUM_SENSORS, "relative_time": NUM_SENSORS}
TRUTH_BRANCHES = {
    "energyTruth": 1,
    "timeTruth": 1,
    "uvwTruth": 3,
    "emiVec": 3,
    "time_min_used": 1,
}
"""Branches of simulated events and their sizes."""


class XecSource:
    """Events of one tree in each of several files, read in pieces.

    Branches: ``npho[4760]`` in photons and ``relative_time[4760]`` in seconds, where NaN and values
    above 9e9 mean "none"; ``run`` and ``event``; of simulated events also ``energyTruth`` in GeV,
    ``timeTruth`` in ns, ``uvwTruth[3]`` in cm, the unit vector ``emiVec[3]`` and ``time_min_used``
    in seconds, the time that ``relative_time`` counts from. A time counts only where the sensor
    saw enough photons.

    Args:
        files: The files, at least one.
        tree: Name of the tree.
        min_photons: Photons from which on a sensor's time is used.
        num_events: Only so many events, the first ones; they stay the same source while files
            are added behind. All by default.

    Raises:
        DataError: If a file cannot be read, lacks a branch or the events asked for, or the files
            differ in whether they know the truth.
    """

    def __init__(
        self,
        files: Sequence[Path],
        tree: str = "tree",
        min_photons: float = 100.0,
        num_events: int | None = None,
    ) -> None:
        self.files = tuple(files)
        self.tree = tree
        self.min_photons = min_photons
        self._ends = [0, *itertools.accumulate(self._open(file) for file in self.files)]
        self.num_events = self._ends[-1] if num_events is None else num_events
        if not 0 < self.num_events <= self._ends[-1]:
            raise DataError.of(
                self.name,
                "events",
                found=self._ends[-1],
                expected=f"at least {max(1, self.num_events)}",
            )
        self.files = self.files[: bisect.bisect_left(self._ends, self.num_events)]

    @property
    def name(self) -> str:
        """How messages call the source."""
        return name_files(self.files)

    @property
    def block_ends(self) -> np.ndarray:
        """Rows at which a stored block ends, in order; the last one is ``num_events``."""
        ends = [
            first + np.asarray(open_tree(file, self.tree)["npho"].entry_offsets[1:], np.int64)
            for first, file in zip(self._ends[:-1], self.files, strict=False)
        ]
        ends = np.concatenate(ends)
        return np.append(ends[ends < self.num_events], self.num_events)

    def fingerprint(self) -> str:
        """Hash of the names of the files, of the sizes of those read whole, and of the numbers."""
        if self.num_events == self._ends[len(self.files)]:
            return fingerprint_files(self.files, self.num_events)
        lines = [str(self.num_events), *(file.name for file in self.files)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def numbers(self) -> dict[str, np.ndarray]:
        """Numbers of the run and of the event, by which events are divided, each (J).

        ``event_number`` holds both: the run above the lowest 32 bits, the event in them.
        """
        parts = [
            self._arrays(file, 0, self._ends[i + 1] - self._ends[i], NUMBERS)
            for i, file in enumerate(self.files)
        ]
        run, event = (
            np.concatenate([part[name] for part in parts])[: self.num_events].astype(np.int64)
            for name in NUMBERS
        )
        return {"run": run, "event_number": (run << 32) + event}

    def read(self, start: int, stop: int) -> XecBatch:
        """Read and check some events.

        Args:
            start: First row.
            stop: Row after the last.

        Raises:
            DataError: If they cannot be read or the truth is not finite.
            ValueError: If the rows do not lie within the source.
        """
        if not 0 <= start <= stop <= self.num_events:
            raise ValueError(f"rows {start} to {stop} must lie within {self.num_events} events")
        parts = []
        number = min(bisect.bisect_right(self._ends, start), len(self.files)) - 1
        while True:
            first, end = self._ends[number], min(stop, self._ends[number + 1])
            parts.append(self._read(self.files[number], start - first, end - first, first))
            if end == stop:
                return join(parts)
            start, number = end, number + 1

    def _open(self, file: Path) -> int:
        """Check the branches of a file and return its number of events."""
        try:
            tree = open_tree(file, self.tree)
            sizes = {
                name: int(np.prod(branch.interpretation.inner_shape))
                for name, branch in tree.items()
                if isinstance(branch.interpretation, uproot.AsDtype)
            }
            num_events = int(tree.num_entries)
        except DataError:
            raise
        except Exception as error:
            raise self._unreadable(file, error) from error
        needed = {**dict.fromkeys(NUMBERS, 1), **SENSORS}
        knows_truth = bool(TRUTH_BRANCHES.keys() & sizes.keys())
        if file == self.files[0]:
            self.has_truth = knows_truth
        elif knows_truth != self.has_truth:
            raise DataError.of(
                file,
                "branches",
                found=f"{'the' if knows_truth else 'no'} truth",
                expected=f"{'the' if self.has_truth else 'no'} truth, as in {self.files[0]}",
                remedy="read simulated events and data apart",
            )
        needed |= TRUTH_BRANCHES if knows_truth else {}
        for name, size in needed.items():
            if sizes.get(name) != size:
                raise DataError.of(
                    file,
                    f"branch {name}",
                    found=f"{sizes[name]} values an event" if name in sizes else "none",
                    expected=f"{size} number(s) an event",
                )
        if not num_events:
            raise DataError.of(file, "events", found="none", expected="at least one")
        return num_events

    def _read(self, file: Path, start: int, stop: int, first: int) -> XecBatch:
        names = [*NUMBERS, *SENSORS, *(TRUTH_BRANCHES if self.has_truth else ())]
        columns = self._arrays(file, start, stop, names)
        photons, seconds = columns["npho"], columns["relative_time"]  # (J, S)
        valid = np.isfinite(photons) & (photons <= INVALID)
        photons = np.where(valid, photons, 0.0)
        time_valid = valid & (photons >= self.min_photons)
        time_valid &= np.isfinite(seconds) & (np.abs(seconds) <= INVALID)
        time = np.where(time_valid, seconds, 0.0) * NS_PER_SECOND
        num = stop - start
        truth = [np.full(shape, np.nan) for shape in ((num,), (num, 3), (num, 3), (num,), (num,))]
        if self.has_truth:
            self._refuse_infinite(file, columns, start)
            first_time = columns["time_min_used"] * NS_PER_SECOND
            truth = [
                columns["energyTruth"] * MEV_PER_GEV,
                columns["uvwTruth"],
                columns["emiVec"],
                columns["timeTruth"] - first_time,
                first_time,
            ]
        *truth, first_time = truth
        floats = [*(np.asarray(x, np.float32) for x in truth), first_time, np.ones(num, np.float32)]
        whole = [columns[name].astype(np.int64) for name in NUMBERS]
        whole.append(np.arange(start, stop) + first)
        sensors = (photons.astype(np.float32), time.astype(np.float32), valid, time_valid)
        return XecBatch(*map(torch.from_numpy, (*sensors, *floats, *whole)))

    def _arrays(
        self, file: Path, start: int, stop: int, names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        try:
            columns = open_tree(file, self.tree).arrays(
                list(names), entry_start=start, entry_stop=stop, library="np"
            )
            columns = {name: np.asarray(values) for name, values in columns.items()}
            for name in TRUTH_BRANCHES.keys() & columns.keys():
                columns[name] = columns[name].astype(np.float64)
        except Exception as error:
            raise self._unreadable(file, error) from error
        if any(len(values) != stop - start for values in columns.values()):
            found = min(map(len, columns.values()))
            raise DataError.of(file, "events", found=found, expected=stop - start)
        return columns

    def _refuse_infinite(self, file: Path, columns: dict[str, np.ndarray], start: int) -> None:
        for name in TRUTH_BRANCHES:
            finite = np.isfinite(columns[name]).reshape(len(columns[name]), -1).all(1)  # (J)
            if not finite.all():
                event = int(np.argmin(finite))
                raise DataError.of(
                    f"{file}, event {start + event}",
                    name,
                    found=columns[name][event],
                    expected="finite values",
                )

    def _unreadable(self, file: Path, error: Exception) -> DataError:
        return DataError.of(
            file,
            "contents",
            found=f"{type(error).__name__}: {error}"[:300],
            expected="a complete ROOT file",
            remedy="fetch the file again",
        )
