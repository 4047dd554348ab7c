"""Jets in arrays at hand, such as those of an analysis in Python."""

# J jets, N slots, P particles of all jets

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from hepattn.data.error import DataError
from hepattn.data.jets.features import VECTOR
from hepattn.data.jets.source import JetFile
from hepattn.data.jets.table import NO_LABEL, JetTable


class ArrayJets(JetFile):
    """Jets in padded arrays, to be scored: they have no labels.

    Args:
        columns: By name, columns of the particles (J, N), among them ``part_px``, ``part_py``,
            ``part_pz`` and ``part_energy`` in GeV, and, named ``jet_…``, of the jets (J).
        valid: True for real particles (J, N), in any order.

    Raises:
        DataError: If the momentum lacks, or the shapes differ.
    """

    def __init__(self, columns: Mapping[str, ArrayLike], valid: ArrayLike) -> None:
        super().__init__(Path("arrays"))
        self.valid = np.asarray(valid)
        if self.valid.ndim != 2 or self.valid.dtype != bool:
            raise DataError.of(
                self.path,
                "valid",
                found=f"{self.valid.dtype} {self.valid.shape}",
                expected="bool (jets, slots)",
            )
        self.arrays = {name: np.asarray(values) for name, values in columns.items()}
        if missing := [name for name in VECTOR if name not in self.arrays]:
            raise DataError.of(
                self.path,
                "columns",
                found=f"no {', '.join(missing)}",
                expected="the momentum of the particles in GeV",
            )
        for name, values in self.arrays.items():
            shape = self.valid.shape[:1] if name.startswith("jet_") else self.valid.shape
            if values.shape != shape or values.dtype.kind not in "biuf":
                raise DataError.of(
                    self.path,
                    name,
                    found=f"{values.dtype} {values.shape}",
                    expected=f"numbers {shape}",
                )
        self.classes = ()
        self.columns = frozenset(self.arrays)
        self.num_jets = len(self.valid)
        self.require_jets()

    @property
    def block_ends(self) -> np.ndarray:
        """Every row: all are in memory."""
        return np.arange(1, self.num_jets + 1)

    def read_raw(self, start: int, stop: int, columns: frozenset[str]) -> JetTable:
        """Read some jets; see ``JetFile.read_raw``."""
        real = self.valid[start:stop]
        particles, jets = {}, {}
        for name in columns | set(VECTOR):
            values = self.arrays[name][start:stop].astype(np.float32)
            if name.startswith("jet_"):
                jets[name] = values
            else:
                particles[name] = values[real]  # (P)
        label = np.full(stop - start, NO_LABEL)
        return JetTable(real.sum(1), particles, jets, label, np.arange(start, stop))

    def fingerprint(self) -> str:
        """Hash of the arrays."""
        parts = [self.valid, *(self.arrays[name] for name in sorted(self.arrays))]
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]
