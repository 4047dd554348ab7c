"""Events into our HDF5 format."""

# J events, P slots of a kind

import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from hepattn.data.error import DataError

VERSION = 1
EVENTS, VALID = "events", "valid"
LABEL, WEIGHT, EVENT_NUMBER = "label", "weight", "event_number"
REQUIRED = (LABEL, WEIGHT, EVENT_NUMBER)
UNLABELLED = -1
ROWS_A_CHUNK = 1024


def write_events(
    path: str | Path, tables: Mapping[str, np.ndarray], classes: Mapping[str, int]
) -> None:
    """Write events and their objects as structured datasets.

    The file appears under its name only when it is complete.

    Args:
        path: The file; one that is there is replaced.
        tables: The structured arrays: ``events`` (J) with the columns ``label`` (number of the
            process, -1 where it is unknown), ``weight`` and ``event_number``, and for each kind
            of object its own (J, P) with a boolean column ``valid``, True for real objects. Other
            columns are numbers; what padded slots hold does not matter.
        classes: Number of each process by its name.

    Raises:
        DataError: If a table has the wrong shape or lacks a column, or a label is no process.
    """
    path = Path(path)
    _check(path, tables, classes)
    partial = path.with_name(f"{path.name}.partial")
    with h5py.File(partial, "w") as file:
        file.attrs["version"] = VERSION
        file.attrs["classes"] = json.dumps({name: int(number) for name, number in classes.items()})
        for name, table in tables.items():
            chunks = (min(len(table), ROWS_A_CHUNK), *table.shape[1:])
            file.create_dataset(
                name, data=table, chunks=chunks, compression="gzip", compression_opts=1
            )
    partial.replace(path)


def _check(path: Path, tables: Mapping[str, np.ndarray], classes: Mapping[str, int]) -> None:
    if EVENTS not in tables:
        raise DataError.of(path, "tables", found=list(tables), expected=f"one called {EVENTS}")
    for name, table in tables.items():
        is_events = name == EVENTS
        _check_columns(f"{path}: {name}", table, REQUIRED if is_events else (VALID,))
        num_slots = table.shape[1:]
        if len(num_slots) != (0 if is_events else 1) or not table.size:
            shape = "(events)" if is_events else "(events, slots)"
            raise DataError.of(
                f"{path}: {name}", "shape", found=table.shape, expected=f"{shape}, none of them 0"
            )
        if len(table) != len(tables[EVENTS]):
            raise DataError.of(
                f"{path}: {name}", "rows", found=len(table), expected=len(tables[EVENTS])
            )
        if not is_events and table.dtype[VALID] != np.bool_:
            raise DataError.of(
                f"{path}: {name}", VALID, found=table.dtype[VALID], expected="booleans"
            )
    if len(set(classes.values())) < len(classes) or UNLABELLED in classes.values():
        raise DataError.of(
            path, "classes", found=dict(classes), expected="different numbers, none of them -1"
        )
    labels = np.unique(tables[EVENTS][LABEL])
    unknown = labels[~np.isin(labels, [UNLABELLED, *classes.values()])]
    if len(unknown):
        raise DataError.of(path, LABEL, found=unknown[0], expected=f"a number of {dict(classes)}")


def _check_columns(place: str, table: np.ndarray, required: tuple[str, ...]) -> None:
    names = table.dtype.names or ()
    if missing := [name for name in required if name not in names]:
        raise DataError.of(
            place, "columns", found=list(names), expected=f"{', '.join(missing)} as well"
        )
    for name in names:
        if table.dtype[name].kind not in "biuf":
            raise DataError.of(place, name, found=table.dtype[name], expected="numbers or booleans")
