"""Write jets as JetNet has them: HDF5 with particles relative to their jet."""

# J jets, N particles

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

PARTICLE_COLUMNS = ("etarel", "phirel", "ptrel", "mask")
JET_COLUMNS = ("type", "pt", "eta", "mass", "num_particles")
CHUNK = 1000  # rows that are compressed together


class JetNetWriter:
    """A file that jets are added to; nothing is at its path before it is complete.

    Args:
        path: The file; a file that is there is replaced.
        max_particles: Slots N of a jet.
        classes: Names of the jet types, in the order of their numbers.
        attributes: More attributes of the file, such as where the jets come from.
    """

    def __init__(
        self,
        path: Path,
        max_particles: int,
        classes: Sequence[str],
        attributes: dict[str, str | int] | None = None,
    ) -> None:
        self.path = path
        self._part = path.with_name(f"{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = h5py.File(self._part, "w")
        for name, shape, columns in (
            ("particle_features", (max_particles,), PARTICLE_COLUMNS),
            ("jet_features", (), JET_COLUMNS),
        ):
            shape = (*shape, len(columns))
            dataset = self._file.create_dataset(
                name,
                shape=(0, *shape),
                maxshape=(None, *shape),
                chunks=(CHUNK, *shape),
                dtype=np.float32,
                compression="gzip",
            )
            dataset.attrs["names"] = columns
        self._file.attrs["classes"] = list(classes)
        for name, value in (attributes or {}).items():
            self._file.attrs[name] = value

    def add(self, particles: np.ndarray, jets: np.ndarray) -> None:
        """Add jets.

        Args:
            particles: Columns etarel, phirel, ptrel and mask (J, N, 4), zero at padded slots.
            jets: Columns type, pT in GeV, η, mass in GeV and number of particles (J, 5).
        """
        for name, rows in (("particle_features", particles), ("jet_features", jets)):
            dataset = self._file[name]
            first = len(dataset)
            dataset.resize(first + len(rows), axis=0)
            dataset[first:] = rows

    def __enter__(self) -> "JetNetWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink()
