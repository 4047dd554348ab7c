"""Jets in npz files, in the layout of EnergyFlow."""

# J jets, N slots

import zipfile
import zlib
from pathlib import Path

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.jets.hdf5 import massless_columns
from hepattn.data.jets.source import JetFile
from hepattn.data.jets.table import JetTable, pack

CLASSES = ("gluon", "quark")
COLUMNS = ("pt", "rapidity", "phi", "part_pdgid")
FAULTS = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
FAULTS += (NotImplementedError, SyntaxError, MemoryError, OverflowError, RuntimeError)


class NpzJets(JetFile):
    """Quark and gluon jets: ``X`` (J, N, 4) of pt, rapidity, φ and PDG id, ``y`` 1 for quarks.

    Particles are massless; slots with nothing but zeros are padding. A compressed archive has to
    be read as a whole, so that this file lives in memory from its first use on.

    Args:
        path: The file.

    Raises:
        DataError: If the file cannot be read, lacks an array or has no jets.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.classes = CLASSES
        self.columns = frozenset(("part_px", "part_py", "part_pz", "part_energy", COLUMNS[-1]))
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                if missing := [name for name in ("X", "y") if name not in archive]:
                    raise DataError.of(
                        path, "arrays", found=f"no {' and '.join(missing)}", expected="X and y"
                    )
                self.x, self.y = archive["X"], archive["y"]
        except DataError:
            raise
        except FAULTS as error:
            raise self.unreadable(error) from error
        if self.x.ndim != 3 or self.x.shape[2] != 4 or self.y.shape != self.x.shape[:1]:
            raise DataError.of(
                path,
                "shapes",
                found=f"X {self.x.shape}, y {self.y.shape}",
                expected="X (jets, slots, 4) and y (jets)",
            )
        if self.x.dtype.kind != "f" or self.y.dtype.kind not in "iuf":
            raise DataError.of(
                path, "types", found=f"X {self.x.dtype}, y {self.y.dtype}", expected="numbers"
            )
        self.num_jets = len(self.x)
        self.require_jets()

    @property
    def block_ends(self) -> np.ndarray:
        """Every row: the file is in memory."""
        return np.arange(1, self.num_jets + 1)

    def read_raw(self, start: int, stop: int, columns: frozenset[str]) -> JetTable:
        """Read some jets; see ``JetFile.read_raw``."""
        counts, flat = pack(self.x[start:stop], COLUMNS)
        particles = massless_columns(flat["pt"], flat["rapidity"], flat["phi"])
        if "part_pdgid" in columns:
            particles["part_pdgid"] = flat["part_pdgid"]
        label = self.y[start:stop].astype(np.int64)
        return JetTable(counts, particles, {}, label, np.arange(start, stop))
