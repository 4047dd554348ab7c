"""Files that hold jets of one type each, as those that JetNet publishes."""

# J jets

import bisect
import itertools
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.jets.source import JetSource
from hepattn.data.jets.table import NO_LABEL, JetTable, concatenate


class TypedJets(JetSource):
    """Sources one after the other, each of which is a class.

    Args:
        parts: The source of each class, whose own labels are left aside, in the order of their
            numbers.

    Raises:
        DataError: If there is no source, or their columns differ.
    """

    def __init__(self, parts: Mapping[str, JetSource]) -> None:
        if not parts:
            raise DataError.of("jets", "types", found="none", expected="a file for each type")
        self.parts = tuple(parts.values())
        first = self.parts[0]
        for part in self.parts[1:]:
            if part.columns != first.columns:
                raise DataError.of(
                    part.name,
                    "columns",
                    found=", ".join(sorted(part.columns)),
                    expected=f"those of {first.name}: {', '.join(sorted(first.columns))}",
                )
        self.classes = tuple(parts)
        self.columns = first.columns
        self.files = tuple(file for part in self.parts for file in part.files)
        self.ends = list(itertools.accumulate(part.num_jets for part in self.parts))
        self.num_jets = self.ends[-1]

    @property
    def file_ends(self) -> list[int]:
        """Rows at which a file ends."""
        return np.concatenate(self._shifted("file_ends")).tolist()

    @property
    def block_ends(self) -> np.ndarray:
        """Ends of the blocks of all files."""
        return np.concatenate(self._shifted("block_ends"))

    def read(
        self, start: int, stop: int, columns: Collection[str] | None = None, skip_bad: bool = False
    ) -> JetTable:
        """Read and check some jets, perhaps of several types; see ``JetSource.read``."""
        if not 0 <= start <= stop <= self.num_jets:
            raise ValueError(f"rows {start} to {stop} must lie within the {self.num_jets} jets")
        tables = []
        label = min(bisect.bisect_right(self.ends, start), len(self.parts) - 1)
        while True:
            first = self.ends[label] - self.parts[label].num_jets
            end = min(stop, self.ends[label])
            table = self.parts[label].read(start - first, end - first, columns, skip_bad)
            bad = np.zeros(table.num_jets, bool)
            if skip_bad and table.weight is not None:
                bad = table.weight == 0
            kind = np.where(bad, NO_LABEL, label)
            tables.append(replace(table, index=table.index + first, label=kind))
            if end == stop:
                return concatenate(tables)
            start, label = end, label + 1

    def _shifted(self, name: str) -> list[np.ndarray]:
        starts = [0, *self.ends[:-1]]
        return [
            start + np.asarray(getattr(part, name))
            for start, part in zip(starts, self.parts, strict=True)
        ]
