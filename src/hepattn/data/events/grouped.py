"""Events in HDF5 files with one dataset a column, such as SPANet's."""

# J events, P slots of a kind

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from hepattn.data.error import DataError
from hepattn.data.events.hdf5 import SUFFIXES, Hdf5File
from hepattn.data.events.reader import EventReader
from hepattn.data.events.source import Columns, EventFile
from hepattn.data.events.table import EventTable, ObjectTable


@dataclass(frozen=True)
class GroupedHDF5(EventReader):
    """Reads groups with a dataset (J, P) for each column of an object, and a mask.

    Every dataset (J) of numbers in the file is a column of the events; its name is its path, such
    as ``TARGETS/t1/b``.

    Args:
        objects: For each kind of object its group, such as ``INPUTS/Source``.
        mask: Name of the dataset in each group that is true for real objects.

    Raises:
        ValueError: If two kinds have the same group.
    """

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    objects: dict[str, str] = field(default_factory=dict)
    mask: str = "MASK"

    def __post_init__(self) -> None:
        if len(set(self.objects.values())) < len(self.objects):
            raise ValueError(f"objects={self.objects} must be different groups")

    def open_file(self, path: Path) -> EventFile:
        """Open a file; see ``EventReader.open_file``."""
        return GroupedFile(path, self.objects, self.mask)


class GroupedFile(Hdf5File):
    """A file with one dataset a column.

    Args:
        path: The file.
        groups: For each kind of object its group.
        mask: Name of the dataset that is true for real objects.
    """

    def __init__(self, path: Path, groups: Mapping[str, str], mask: str) -> None:
        self.groups = groups
        self.mask = mask
        super().__init__(path)

    def find_columns(self, file: h5py.File) -> None:
        """Find the columns of the events and of the objects."""
        flat = {name: item for name, item in _numbers(file).items() if item.ndim == 1}
        objects, masks = {}, {}
        for kind, group in self.groups.items():
            item = file.get(group)
            if isinstance(item, h5py.Dataset):
                raise DataError.of(
                    f"{self.path}: {group}",
                    "group",
                    found=f"a dataset of shape {item.shape}",
                    expected=f"a group with a dataset for each column and {self.mask}",
                )
            names = {} if item is None else _numbers(item)
            if self.mask not in names or names[self.mask].ndim != 2:
                raise DataError.of(
                    f"{self.path}: {group}",
                    "datasets",
                    found=f"{', '.join(sorted(names)) or 'none'}",
                    expected=f"{self.mask} (events, slots), true for real objects",
                )
            masks[kind] = names.pop(self.mask)
            objects[kind] = frozenset(names)
        if not masks and not flat:
            raise DataError.of(self.path, "datasets", found="none of numbers", expected="columns")
        self.set_blocks(next(iter({**masks, **flat}.values())))
        self.columns = Columns(frozenset(flat), objects)
        self.classes = {}

    def read_open(self, file: h5py.File, start: int, stop: int, columns: Columns) -> EventTable:
        """Read some events of the opened file."""
        events = {}
        for name in sorted(columns.events):
            self.require_rows(name, file[name])
            events[name] = file[name][start:stop]
        objects = {}
        for kind, names in columns.objects.items():
            group = file[self.groups[kind]]
            mask = group[self.mask]
            for name in (self.mask, *names):
                self.require_rows(group[name].name, group[name])
                if group[name].shape != mask.shape:
                    raise DataError.of(
                        f"{self.path}: {group[name].name}",
                        "shape",
                        found=group[name].shape,
                        expected=f"{mask.shape}, as {self.mask}",
                    )
            objects[kind] = ObjectTable(
                mask[start:stop].astype(bool), {name: group[name][start:stop] for name in names}
            )
        return EventTable(events, objects, np.arange(start, stop))


def _numbers(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """All datasets of numbers in a group and those below it, by path."""
    found: dict[str, h5py.Dataset] = {}

    def look(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.shape and item.dtype.kind in "biuf":
            found[name] = item

    group.visititems(look)
    return found
