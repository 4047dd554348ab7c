"""Events in HDF5 files with structured datasets, of which our own format consists."""

# J events, P slots of a kind

import json
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import h5py
import numpy as np

from hepattn.data.error import DataError
from hepattn.data.events.reader import EventReader
from hepattn.data.events.source import Columns, EventFile
from hepattn.data.events.table import EventTable, ObjectTable
from hepattn.data.events.write import EVENTS, VALID, VERSION

Result = TypeVar("Result")
SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True)
class EventHDF5(EventReader):
    """Reads our format: what ``write_events`` writes.

    ``events`` (J) is structured; every other dataset (J, P) is a kind of object, with a boolean
    column ``valid``.
    """

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    def open_file(self, path: Path) -> EventFile:
        """Open a file; see ``EventReader.open_file``."""
        return ValidFile(path)


class Hdf5File(EventFile):
    """What all HDF5 files share.

    Args:
        path: The file.

    Raises:
        DataError: If the file or a needed dataset cannot be read, or it has no events.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._guarded(self.find_columns)

    @property
    def block_ends(self) -> np.ndarray:
        """Ends of the chunks of rows."""
        ends = np.arange(self.rows_a_block, self.num_events, self.rows_a_block)
        return np.append(ends, self.num_events)

    def read_raw(self, start: int, stop: int, columns: Columns) -> EventTable:
        """Read some events; see ``EventFile.read_raw``."""
        return self._guarded(lambda file: self.read_open(file, start, stop, columns))

    @abstractmethod
    def find_columns(self, file: h5py.File) -> None:
        """Set what an opened source knows of itself."""

    @abstractmethod
    def read_open(self, file: h5py.File, start: int, stop: int, columns: Columns) -> EventTable:
        """Read some events of the opened file."""

    def set_blocks(self, dataset: h5py.Dataset) -> None:
        """Set the number of events and of rows a chunk."""
        self.set_rows(dataset.shape[0])
        self.rows_a_block = dataset.chunks[0] if dataset.chunks else self.num_events

    def require_rows(self, name: str, dataset: h5py.Dataset) -> None:
        """Refuse a dataset with another number of rows than there are events."""
        if dataset.shape[0] != self.num_events:
            raise DataError.of(
                f"{self.path}: {name}",
                "rows",
                found=dataset.shape[0],
                expected=f"{self.num_events}, one for each event",
            )

    def _guarded(self, work: Callable[[h5py.File], Result]) -> Result:
        try:
            with h5py.File(self.path) as file:
                return work(file)
        except DataError:
            raise
        except Exception as error:
            raise self.unreadable(error) from error


class StructuredFile(Hdf5File):
    """Structured datasets, of which formats say differently which slots are real."""

    @abstractmethod
    def find_kinds(self, file: h5py.File) -> Collection[str]:
        """Names of the datasets of objects."""

    @abstractmethod
    def find_classes(self, file: h5py.File) -> Mapping[str, int]:
        """Number of each process by its name."""

    @abstractmethod
    def columns_of_valid(self, kind: str, dtype: np.dtype) -> Collection[str]:
        """Columns that say which slots are real."""

    @abstractmethod
    def find_valid(self, kind: str, rows: np.ndarray) -> np.ndarray:
        """Which slots are real (J, P)."""

    def find_columns(self, file: h5py.File) -> None:
        """Find the columns of the events and of the objects."""
        if not is_table(file.get(EVENTS), num_dimensions=1):
            raise DataError.of(
                self.path,
                "datasets",
                found=f"{', '.join(file) or 'none'}",
                expected=f"{EVENTS}, structured, with one row for each event",
                remedy="choose the reader of this format",
            )
        self.set_blocks(file[EVENTS])
        objects = {}
        for kind in self.find_kinds(file):
            if not is_table(file.get(kind), num_dimensions=2):
                raise DataError.of(
                    f"{self.path}: {kind}",
                    "dataset",
                    found=file.get(kind),
                    expected="a structured one with a row for each event and a slot an object",
                )
            self.require_rows(kind, file[kind])
            objects[kind] = number_columns(file[kind].dtype) - {VALID}
            self.columns_of_valid(kind, file[kind].dtype)
        self.columns = Columns(number_columns(file[EVENTS].dtype), objects)
        self.classes = self.find_classes(file)

    def read_open(self, file: h5py.File, start: int, stop: int, columns: Columns) -> EventTable:
        """Read some events of the opened file."""
        rows = read_fields(file[EVENTS], columns.events, start, stop)
        events = {name: rows[name] for name in sorted(columns.events)}
        objects = {}
        for kind, names in columns.objects.items():
            needed = {*names, *self.columns_of_valid(kind, file[kind].dtype)}
            rows = read_fields(file[kind], needed, start, stop)
            objects[kind] = ObjectTable(
                self.find_valid(kind, rows), {name: rows[name] for name in sorted(names)}
            )
        return EventTable(events, objects, np.arange(start, stop))


class ValidFile(StructuredFile):
    """A file of our format."""

    def find_kinds(self, file: h5py.File) -> Collection[str]:
        """All datasets but that of the events."""
        if (version := file.attrs.get("version")) != VERSION:
            raise DataError.of(
                self.path,
                "attribute version",
                found="none" if version is None else version,
                expected=VERSION,
                remedy="choose the reader of this format",
            )
        return [name for name in file if name != EVENTS]

    def find_classes(self, file: h5py.File) -> Mapping[str, int]:
        """The attribute ``classes``."""
        return parse_classes(self.path, file.attrs.get("classes"))

    def columns_of_valid(self, kind: str, dtype: np.dtype) -> Collection[str]:
        """The column ``valid``."""
        if VALID not in (dtype.names or ()) or dtype[VALID] != np.bool_:
            raise DataError.of(
                f"{self.path}: {kind}",
                "columns",
                found=", ".join(dtype.names or ()),
                expected=f"a boolean column {VALID}",
            )
        return (VALID,)

    def find_valid(self, kind: str, rows: np.ndarray) -> np.ndarray:
        """What that column says."""
        return rows[VALID]


def is_table(item: object, num_dimensions: int) -> bool:
    """Whether something in a file is a structured dataset.

    Args:
        item: What is there.
        num_dimensions: Number of dimensions that it should have.
    """
    return (
        isinstance(item, h5py.Dataset)
        and item.dtype.names is not None
        and len(item.shape) == num_dimensions
    )


def number_columns(dtype: np.dtype) -> frozenset[str]:
    """Columns of numbers or booleans of a structured type.

    Args:
        dtype: The type.
    """
    return frozenset(name for name in dtype.names or () if dtype[name].kind in "biuf")


def read_fields(dataset: h5py.Dataset, names: Collection[str], start: int, stop: int) -> np.ndarray:
    """Read some columns of some rows of a structured dataset.

    Args:
        dataset: The dataset.
        names: Names of the columns.
        start: First row.
        stop: Row after the last.
    """
    return dataset.fields(sorted(names))[start:stop] if names else np.empty(stop - start)


def parse_classes(path: Path, text: str | None) -> dict[str, int]:
    """Numbers of the processes, of JSON.

    Args:
        path: The file.
        text: The JSON; None where there is none.

    Raises:
        DataError: If they are no different whole numbers.
    """
    classes = {} if text is None else json.loads(text)
    if (
        not isinstance(classes, dict)
        or not all(isinstance(number, int) for number in classes.values())
        or len(set(classes.values())) < len(classes)
    ):
        raise DataError.of(path, "classes", found=classes, expected="one number for each name")
    return classes
