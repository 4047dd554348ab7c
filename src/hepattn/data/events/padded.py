"""Events in HDF5 files that mark padded slots by a value."""

# J events, P slots of a kind

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from hepattn.data.error import DataError
from hepattn.data.events.hdf5 import (
    SUFFIXES,
    StructuredFile,
    is_table,
    number_columns,
    parse_classes,
)
from hepattn.data.events.reader import EventReader
from hepattn.data.events.source import EventFile


@dataclass(frozen=True)
class PaddedHDF5(EventReader):
    """Reads structured datasets that mark padded slots by a value, such as SeeSawML's.

    ``events`` (J) is structured, and so is the dataset (J, P) of each kind of object. A slot is
    padded if all its columns of floating-point numbers hold the value, or all its columns where
    none is such. The text ``metadata`` may hold, as JSON, the numbers of the processes under
    ``labels``.

    Args:
        pad_value: The value, or one for each kind; NaN is one, too.
        objects: Kinds of objects to read; null for all datasets (J, P).
    """

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    pad_value: float | dict[str, float]
    objects: tuple[str, ...] | None = None

    def open_file(self, path: Path) -> EventFile:
        """Open a file; see ``EventReader.open_file``."""
        return PaddedFile(path, self)


class PaddedFile(StructuredFile):
    """A file whose padded slots hold a value.

    Args:
        path: The file.
        options: What the reader was told.
    """

    def __init__(self, path: Path, options: PaddedHDF5) -> None:
        self.options = options
        super().__init__(path)

    def find_kinds(self, file: h5py.File) -> Collection[str]:
        """The datasets asked for, or all of two dimensions."""
        if self.options.objects is not None:
            return self.options.objects
        return [name for name in file if is_table(file[name], num_dimensions=2)]

    def find_classes(self, file: h5py.File) -> Mapping[str, int]:
        """The processes in ``metadata``."""
        if "metadata" not in file:
            return {}
        metadata = json.loads(file["metadata"].asstr()[()])
        return parse_classes(self.path, json.dumps(metadata.get("labels", {})))

    def columns_of_valid(self, kind: str, dtype: np.dtype) -> Collection[str]:
        """The columns of floating-point numbers, or all."""
        names = sorted(number_columns(dtype))
        pad_value = self.options.pad_value
        if isinstance(pad_value, dict) and kind not in pad_value:
            raise DataError.of(
                self.path, "pad_value", found=f"none for {kind}", expected=f"one of {kind}"
            )
        return [name for name in names if dtype[name].kind == "f"] or names

    def find_valid(self, kind: str, rows: np.ndarray) -> np.ndarray:
        """Slots of which a column holds something else."""
        pad_value = self.options.pad_value
        value = pad_value[kind] if isinstance(pad_value, dict) else pad_value
        valid = np.zeros(rows.shape, bool)
        for name in self.columns_of_valid(kind, rows.dtype):
            # A number of Python takes the type of the column: 0.1 is found in float32.
            valid |= ~np.isnan(rows[name]) if np.isnan(value) else rows[name] != value
        return valid
