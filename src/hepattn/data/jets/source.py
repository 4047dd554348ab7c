"""What every file of jets can do, and several files as one."""

# J jets

import bisect
import hashlib
import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.files import fingerprint_files, name_files
from hepattn.data.jets.labels import NONE_TRUE, SEVERAL_TRUE
from hepattn.data.jets.table import NO_LABEL, JetTable, concatenate
from hepattn.data.jets.top import VECTOR

logger = logging.getLogger(__name__)

FINGERPRINT_JETS = 100  # read to recognise a file of which more may be written


class JetSource(ABC):
    """Jets in files, read in pieces.

    Every source has the particle columns ``part_px``, ``part_py``, ``part_pz`` and
    ``part_energy`` in GeV; others have the names of the JetClass data set.

    Attributes:
        classes: Names of the classes, in the order of the labels; empty where there are none.
        columns: Names of the columns of particles and jets.
        num_jets: Number of jets.
        files: Where they are.
    """

    classes: tuple[str, ...]
    columns: frozenset[str]
    num_jets: int
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        """How messages call the source."""
        return name_files(self.files)

    @property
    @abstractmethod
    def block_ends(self) -> np.ndarray:
        """Rows at which a stored block ends, in order; the last one is ``num_jets``.

        To read a part of a block takes as long as to read all of it.
        """

    @property
    def file_ends(self) -> list[int]:
        """Rows at which a file ends, in order; the last one is ``num_jets``."""
        return [self.num_jets]

    @abstractmethod
    def read(
        self, start: int, stop: int, columns: Collection[str] | None = None, skip_bad: bool = False
    ) -> JetTable:
        """Read and check some jets.

        Args:
            start: First row.
            stop: Row after the last.
            columns: Names of the columns to read; null for all. Four-vectors come always.
            skip_bad: Whether a jet with a value that is not finite, or with a wrong label, is
                left without particles, label and weight, and logged, instead of an error.

        Raises:
            DataError: If they cannot be read or contradict themselves.
        """

    def fingerprint(self) -> str:
        """Hash of the names and sizes of the files, and of their number of jets."""
        return fingerprint_files(self.files, self.num_jets)


class JetFile(JetSource):
    """One file. A format says how to read its columns; the checks are the same for all.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = (path,)

    @abstractmethod
    def read_raw(self, start: int, stop: int, columns: frozenset[str]) -> JetTable:
        """Read some jets without checks of their values.

        Args:
            start: First row, also the first of ``index``.
            stop: Row after the last.
            columns: Names of the columns to read, all of which there are.
        """

    def read(
        self, start: int, stop: int, columns: Collection[str] | None = None, skip_bad: bool = False
    ) -> JetTable:
        """Read and check some jets; see ``JetSource.read``."""
        if not 0 <= start <= stop <= self.num_jets:
            raise ValueError(f"rows {start} to {stop} must lie within the {self.num_jets} jets")
        wanted = self.columns if columns is None else frozenset(columns)
        if missing := sorted(wanted - self.columns):
            raise DataError.of(
                self.path, "columns", found=f"no {', '.join(missing)}", expected=listing(self)
            )
        table = self.read_raw(start, stop, wanted)
        return self._check(table, skip_bad)

    def release(self) -> None:
        """Forget what was kept in memory to read the next jets faster."""

    def require_jets(self) -> None:
        """Refuse a file without jets."""
        if not self.num_jets:
            raise DataError.of(self.path, "jets", found="an empty file", expected="at least one")

    def unreadable(self, error: Exception) -> DataError:
        """The one error for whatever a format's library says of a damaged file."""
        return DataError.of(
            self.path,
            "contents",
            found=f"{type(error).__name__}: {error}"[:300],
            expected="a complete file of this format",
            remedy="fetch the file again",
        )

    def _check(self, table: JetTable, skip_bad: bool) -> JetTable:
        bad = np.zeros(table.num_jets, dtype=bool)
        for name, values in (table.particles | table.jets).items():
            finite = np.isfinite(values)
            if finite.all():
                continue
            place = int(np.argmin(finite))
            jet = place if name in table.jets else int(table.jet_of_particle[place])
            self._refuse(jet + int(table.index[0]), name, values[place], "finite values", skip_bad)
            wrong = np.flatnonzero(~finite)
            bad[wrong if name in table.jets else table.jet_of_particle[wrong]] = True
        wrong = (table.label < NO_LABEL) | (table.label >= len(self.classes))
        if wrong.any():
            jet = int(np.argmax(wrong))
            found = {NONE_TRUE: "no class", SEVERAL_TRUE: "several classes"}
            label = int(table.label[jet])
            self._refuse(
                jet + int(table.index[0]),
                "label",
                found.get(label, label),
                f"one of 0 to {len(self.classes) - 1} ({', '.join(self.classes)})",
                skip_bad,
            )
            bad |= wrong
        return table.empty(bad) if bad.any() else table

    def _refuse(self, jet: int, field: str, found: object, expected: str, skip_bad: bool) -> None:
        """Raise, or log the first fault of its kind in this piece of the file."""
        error = DataError.of(
            f"{self.path}, jet {jet}",
            field,
            found=found,
            expected=expected,
            remedy=None if skip_bad else "skip_bad=true leaves such jets out",
        )
        if not skip_bad:
            raise error
        logger.warning("left out %s", error)


class JetFiles(JetSource):
    """Several files of the same columns and classes, one after the other.

    Args:
        parts: The files.

    Raises:
        DataError: If their classes or columns differ.
    """

    def __init__(self, parts: Sequence[JetFile]) -> None:
        first = parts[0]
        for part in parts[1:]:
            for field in ("classes", "columns"):
                ours, theirs = set(getattr(first, field)), set(getattr(part, field))
                if getattr(first, field) != getattr(part, field):
                    raise DataError.of(
                        part.path,
                        field,
                        found=f"without {sorted(ours - theirs)}, with {sorted(theirs - ours)}",
                        expected=f"those of {first.path}",
                        remedy="read files of different kinds one by one",
                    )
        self.parts = tuple(parts)
        self.classes, self.columns = first.classes, first.columns
        self.files = tuple(part.path for part in parts)
        self.ends = list(itertools.accumulate(part.num_jets for part in parts))
        self.num_jets = self.ends[-1]
        self._last_read = 0

    @property
    def file_ends(self) -> list[int]:
        """Rows at which a file ends."""
        return self.ends

    @property
    def block_ends(self) -> np.ndarray:
        """Ends of the blocks of all files."""
        starts = [0, *self.ends[:-1]]
        ends = [start + part.block_ends for start, part in zip(starts, self.parts, strict=True)]
        return np.concatenate(ends)

    def read(
        self, start: int, stop: int, columns: Collection[str] | None = None, skip_bad: bool = False
    ) -> JetTable:
        """Read and check some jets, perhaps of several files; see ``JetSource.read``."""
        if not 0 <= start <= stop <= self.num_jets:
            raise ValueError(f"rows {start} to {stop} must lie within the {self.num_jets} jets")
        tables = []
        part = min(bisect.bisect_right(self.ends, start), len(self.parts) - 1)
        while True:
            if part != self._last_read:  # the memory must not grow with the number of files
                self.parts[self._last_read].release()
                self._last_read = part
            first = self.ends[part] - self.parts[part].num_jets
            end = min(stop, self.ends[part])
            table = self.parts[part].read(start - first, end - first, columns, skip_bad)
            tables.append(replace(table, index=table.index + first))
            if end == stop:
                return concatenate(tables)
            start, part = end, part + 1


class FirstJets(JetSource):
    """The first jets of a source.

    They stay the same source while files are added behind, or a last file grows.

    Args:
        source: All its jets.
        num_jets: How many are left.

    Raises:
        DataError: If it has fewer.
    """

    def __init__(self, source: JetSource, num_jets: int) -> None:
        if num_jets > source.num_jets:
            raise DataError.of(
                source.name, "jets", found=source.num_jets, expected=f"at least {num_jets}"
            )
        self.source = source
        self.num_jets = num_jets
        self.classes, self.columns = source.classes, source.columns
        self.files = source.files[: len(self.file_ends)]

    @property
    def file_ends(self) -> list[int]:
        """Rows at which a file ends, the last of which may be cut."""
        return [*(end for end in self.source.file_ends if end < self.num_jets), self.num_jets]

    @property
    def block_ends(self) -> np.ndarray:
        """Ends of the blocks, the last of which may be cut."""
        ends = self.source.block_ends
        return np.append(ends[ends < self.num_jets], self.num_jets)

    def read(
        self, start: int, stop: int, columns: Collection[str] | None = None, skip_bad: bool = False
    ) -> JetTable:
        """Read and check some jets; see ``JetSource.read``."""
        if not 0 <= start <= stop <= self.num_jets:
            raise ValueError(f"rows {start} to {stop} must lie within the {self.num_jets} jets")
        return self.source.read(start, stop, columns, skip_bad)

    def fingerprint(self) -> str:
        """Hash of the files as ``JetSource``'s, of the last one that of its last jets here."""
        *_, start = 0, *self.file_ends[:-1]
        start = max(start, self.num_jets - FINGERPRINT_JETS)
        table = self.read(start, self.num_jets, VECTOR, skip_bad=True)
        columns = [table.counts, table.label, *(table.particles[name] for name in VECTOR)]
        jets = hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()
        sizes = [f"{file.name}:{file.stat().st_size}" for file in self.files[:-1]]
        lines = [str(self.num_jets), *sizes, f"{self.files[-1].name}:{jets}"]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def listing(source: JetSource) -> str:
    """The columns of a source, for messages."""
    return f"columns among {', '.join(sorted(source.columns))}"
