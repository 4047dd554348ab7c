"""Columns of the top-tagging reference data set, in parquet and in HDF5."""

from collections.abc import Sequence
from pathlib import Path

from hepattn.data.error import DataError

CLASSES = ("QCD", "top")
LABEL = "is_signal_new"
SLOTS = ("E", "PX", "PY", "PZ")
VECTOR = ("part_energy", "part_px", "part_py", "part_pz")  # in the order of SLOTS


def find_slots(path: Path, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Names of the four columns of each slot, in the order of the slots.

    Args:
        path: The file, for messages.
        names: All its columns.

    Raises:
        DataError: If a slot lacks a column.
    """
    known = set(names)
    num_slots = sum(name.startswith(f"{SLOTS[0]}_") and name[2:].isdigit() for name in known)
    slots = [tuple(f"{part}_{slot}" for part in SLOTS) for slot in range(num_slots)]
    if missing := [name for slot in slots for name in slot if name not in known]:
        raise DataError.of(
            path,
            "columns",
            found=f"no {', '.join(missing[:4])}",
            expected=f"{', '.join(SLOTS)} of each of {num_slots} slots",
        )
    return slots
