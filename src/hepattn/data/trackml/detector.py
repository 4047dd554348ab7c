"""The table of detector modules."""

# M modules, N hits

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.trackml.event import Columns
from hepattn.data.trackml.table import ROTATION, check_unique, find_rows

BITS = {"volume_id": 15, "layer_id": 16, "module_id": 32}


class Detector:
    """Modules of the detector, found by (volume, layer, module).

    A module has local axes: u along its pixel rows (or across its strips), v along its columns,
    w normal to it.

    Args:
        table: Columns of ``detectors.csv``; lengths in mm.
        label: Name of that file, for messages.

    Raises:
        DataError: If a module comes twice, or a thickness or pitch is not positive.
    """

    def __init__(self, table: Columns, label: str) -> None:
        self.label = label
        for name in ("module_t", "pitch_u", "pitch_v"):
            if (table[name] <= 0).any():
                raise DataError.of(
                    label, name, found=f"{table[name].min()} mm", expected="positive lengths"
                )
        self.keys = self._pack(table)
        check_unique(self.keys, "(volume_id, layer_id, module_id)", label)
        rotation = np.stack([table[name] for name in ROTATION], axis=1)  # (M, 9)
        self.rotation = rotation.reshape(-1, 3, 3)  # (M, 3, 3)
        self.pitch = np.stack([table["pitch_u"], table["pitch_v"]], axis=1)  # (M, 2) mm
        self.thickness = 2 * table["module_t"]  # (M,) mm; module_t is half of it

    @staticmethod
    def _pack(table: Columns) -> np.ndarray:
        """One integer for the three ids; -1 if an id is outside its range."""
        key = np.zeros(len(table["volume_id"]), dtype=np.int64)
        inside = np.ones(len(key), dtype=bool)
        for name, bits in BITS.items():
            inside &= (table[name] >= 0) & (table[name] < 2**bits)
            key = (key << bits) | (table[name] & (2**bits - 1))
        return np.where(inside, key, -1)

    def rows(self, hits: Columns, label: str) -> np.ndarray:
        """Row of the module of each hit.

        Args:
            hits: Columns with ``volume_id, layer_id, module_id``.
            label: Name of the hits file, for messages.

        Returns:
            (N,) int64.

        Raises:
            DataError: If a hit names a module that the table lacks.
        """
        rows = find_rows(self.keys, self._pack(hits))
        if (rows < 0).any():
            first = int(np.argmin(rows))
            module = tuple(int(hits[name][first]) for name in BITS)
            raise DataError.of(
                label,
                "(volume_id, layer_id, module_id)",
                found=f"{(rows < 0).sum()} hits on unknown modules, first {module}",
                expected=f"modules of {self.label}",
                remedy="use the detectors.csv of these events",
            )
        return rows

    def to_global(self, rows: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Rotate directions from the modules' axes to the detector's.

        Args:
            rows: Row of the module of each direction (N,).
            direction: Components along u, v, w (N, 3).

        Returns:
            Components along x, y, z (N, 3).
        """
        return np.einsum("nij,nj->ni", self.rotation[rows], direction)
