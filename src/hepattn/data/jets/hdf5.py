"""Jets in HDF5 files: tables of pandas as in the top-tagging reference, and JetNet's arrays."""

# J jets, N slots, C columns

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from hepattn.data.error import DataError
from hepattn.data.jets.jetnet import JET_COLUMNS, PARTICLE_COLUMNS
from hepattn.data.jets.labels import JetLabels
from hepattn.data.jets.source import JetFile
from hepattn.data.jets.table import NO_LABEL, JetTable, pack
from hepattn.data.jets.top import CLASSES, LABEL, VECTOR, find_slots

Result = TypeVar("Result")
TABLE = "table/table"
# A list of strings as protocol 0 of pickle writes it. It is read as text: nothing is unpickled.
PICKLED_NAME = re.compile(r"^(?:\(lp\d+\n)?a?(?:V([^\n]*)|S'([^\n]*)')$", re.MULTILINE)
PARTICLES, JETS = "particle_features", "jet_features"
JETNET_COLUMNS = (
    "part_px", "part_py", "part_pz", "part_energy", "jet_pt", "jet_eta", "jet_phi", "jet_energy"
)  # fmt: skip


def open_hdf5(path: Path) -> JetFile:
    """Open a file in the layout that it has.

    Args:
        path: The file.

    Raises:
        DataError: If it has neither layout.
    """
    try:
        with h5py.File(path) as file:
            names = list(file)
            is_top, is_jetnet = TABLE in file, PARTICLES in file
    except Exception as error:
        raise DataError.of(
            path, "contents", found=error, expected="a complete HDF5 file", remedy="fetch it again"
        ) from error
    if is_top:
        return TopJets(path)
    if is_jetnet:
        return JetNetJets(path)
    raise DataError.of(
        path, "datasets", found=names, expected=f"{TABLE}, or {PARTICLES} and {JETS}"
    )


class Hdf5Jets(JetFile):
    """What both layouts share.

    Args:
        path: The file.

    Raises:
        DataError: If the file or a needed column cannot be read, or it has no jets.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._guarded(self.find_columns)
        self.require_jets()

    @property
    def block_ends(self) -> np.ndarray:
        """Ends of the chunks of rows."""
        ends = np.arange(self.rows_a_block, self.num_jets, self.rows_a_block)
        return np.append(ends, self.num_jets)

    def read_raw(self, start: int, stop: int, columns: frozenset[str]) -> JetTable:
        """Read some jets; see ``JetFile.read_raw``."""
        return self._guarded(lambda file: self.read_open(file, start, stop, columns))

    @abstractmethod
    def find_columns(self, file: h5py.File) -> None:
        """Set what an opened source knows of itself."""

    @abstractmethod
    def read_open(
        self, file: h5py.File, start: int, stop: int, columns: frozenset[str]
    ) -> JetTable:
        """Read some jets of the opened file."""

    def set_rows(self, dataset: h5py.Dataset) -> None:
        """Set the number of jets and of rows a chunk."""
        self.num_jets = dataset.shape[0]
        self.rows_a_block = dataset.chunks[0] if dataset.chunks else max(1, self.num_jets)

    def _guarded(self, work: Callable[[h5py.File], Result]) -> Result:
        try:
            with h5py.File(self.path) as file:
                return work(file)
        except DataError:
            raise
        except Exception as error:
            raise self.unreadable(error) from error


class TopJets(Hdf5Jets):
    """A pandas table: the columns ``E_0, PX_0, PY_0, PZ_0, E_1, …`` and ``is_signal_new``."""

    def find_columns(self, file: h5py.File) -> None:
        """Find the blocks of the table and the places of the columns in them."""
        dataset = file[TABLE]
        self.set_rows(dataset)
        places: dict[str, tuple[str, int]] = {}
        for block in dataset.dtype.names or ():
            if not block.startswith("values_block"):
                continue
            names = parse_names(dataset.attrs[f"{block}_kind"])
            if len(names) != dataset.dtype[block].shape[0]:
                raise DataError.of(
                    self.path,
                    f"{block}_kind",
                    found=f"{len(names)} names",
                    expected=f"one for each of {dataset.dtype[block].shape[0]} columns",
                )
            places |= {name: (block, i) for i, name in enumerate(names)}
        slots = find_slots(self.path, list(places))
        if not slots:
            raise DataError.of(self.path, "columns", found="no E_0", expected="columns E_0, PX_0 …")
        needed = [places[name] for slot in slots for name in slot]
        self.block = needed[0][0]
        if any(block != self.block for block, _ in needed):
            raise DataError.of(
                self.path, "blocks", found="four-vectors in several", expected="all in one"
            )
        self.order = np.array([i for _, i in needed])
        self.in_order = bool((self.order == np.arange(len(needed))).all())
        self.label_place = places.get(LABEL)
        self.labels = JetLabels(CLASSES, column=LABEL)
        self.classes = CLASSES if self.label_place else ()
        self.columns = frozenset(VECTOR)

    def read_open(
        self, file: h5py.File, start: int, stop: int, columns: frozenset[str]
    ) -> JetTable:
        """Read some jets of the opened file."""
        rows = file[TABLE][start:stop]
        values = rows[self.block]
        values = values[:, : len(self.order)] if self.in_order else values[:, self.order]
        counts, particles = pack(values.reshape(len(rows), -1, len(VECTOR)), VECTOR)
        label = np.full(len(rows), NO_LABEL)
        if self.label_place:
            block, column = self.label_place
            label = self.labels.decode({LABEL: rows[block][:, column]})
        return JetTable(counts, particles, {}, label, np.arange(start, stop))


class JetNetJets(Hdf5Jets):
    """JetNet's arrays: massless particles relative to their jet.

    ``particle_features`` (J, N, C) holds etarel, phirel, ptrel and mask, ``jet_features`` (J, C)
    type, pt, eta, mass and num_particles; attributes ``names`` say so, or the order is this one
    (jets of four columns have no type). The attribute ``classes`` of the file names the types.
    JetNet does not store the φ of jets: it is 0.
    """

    def find_columns(self, file: h5py.File) -> None:
        """Find the order of the columns and the classes."""
        if JETS not in file:
            raise DataError.of(self.path, "datasets", found=f"no {JETS}", expected=JETS)
        particles, jets = file[PARTICLES], file[JETS]
        self.set_rows(particles)
        if jets.shape[0] != self.num_jets:
            raise DataError.of(
                self.path, JETS, found=f"{jets.shape[0]} jets", expected=f"{self.num_jets}"
            )
        default = JET_COLUMNS if jets.shape[1] >= len(JET_COLUMNS) else JET_COLUMNS[1:]
        self.particle_places = self._places(particles, PARTICLE_COLUMNS, PARTICLE_COLUMNS)
        self.jet_places = self._places(jets, default, JET_COLUMNS[1:4])
        self.columns = frozenset(JETNET_COLUMNS)
        self.classes = ()
        if "type" in self.jet_places:
            names = file.attrs.get("classes")
            if names is None:
                raise DataError.of(
                    self.path, "attribute classes", found="none", expected="names of the types"
                )
            self.classes = tuple(_to_text(name) for name in np.atleast_1d(names))

    def read_open(
        self, file: h5py.File, start: int, stop: int, columns: frozenset[str]
    ) -> JetTable:
        """Read some jets of the opened file."""
        raw, jet = file[PARTICLES][start:stop], file[JETS][start:stop]
        real = raw[..., self.particle_places["mask"]] > 0.5  # (J, N)
        counts = real.sum(1)
        flat = {
            name: raw[..., self.particle_places[name]][real].astype(np.float32)
            for name in PARTICLE_COLUMNS[:3]
        }
        pt, eta, mass = (
            jet[:, self.jet_places[name]].astype(np.float64) for name in ("pt", "eta", "mass")
        )
        part_pt = flat["ptrel"] * np.repeat(pt.astype(np.float32), counts)
        part_eta = flat["etarel"] + np.repeat(eta.astype(np.float32), counts)
        particles = massless_columns(part_pt, part_eta, flat["phirel"])
        jets = {
            "jet_pt": pt,
            "jet_eta": eta,
            "jet_phi": np.zeros_like(pt),
            "jet_energy": np.sqrt(np.square(mass) + np.square(pt * np.cosh(eta))),
        }
        label = np.full(len(jet), NO_LABEL)
        if "type" in self.jet_places:
            label = jet[:, self.jet_places["type"]].astype(np.int64)
        keep = {name: x.astype(np.float32) for name, x in jets.items() if name in columns}
        return JetTable(counts, particles, keep, label, np.arange(start, stop))

    def _places(
        self, dataset: h5py.Dataset, default: Sequence[str], needed: Sequence[str]
    ) -> dict[str, int]:
        names = dataset.attrs.get("names")
        found = list(default) if names is None else [_to_text(name) for name in names]
        if len(found) > dataset.shape[-1] or not set(needed) <= set(found):
            raise DataError.of(
                f"{self.path}: {dataset.name}",
                "columns",
                found=f"{dataset.shape[-1]}, called {', '.join(found)}",
                expected=f"all of {', '.join(needed)}",
            )
        return {name: i for i, name in enumerate(found)}


def parse_names(pickled: bytes) -> list[str]:
    """Names in a list of strings as protocol 0 of pickle writes it.

    Args:
        pickled: The list.
    """
    return [first or second for first, second in PICKLED_NAME.findall(_to_text(pickled))]


def massless_columns(pt: np.ndarray, eta: np.ndarray, phi: np.ndarray) -> dict[str, np.ndarray]:
    """Four-vectors of massless particles.

    Args:
        pt: Transverse momentum in GeV (P).
        eta: Pseudorapidity (P).
        phi: Azimuth (P).

    Returns:
        The columns (P) in float32.
    """
    columns = {
        "part_px": pt * np.cos(phi),
        "part_py": pt * np.sin(phi),
        "part_pz": pt * np.sinh(eta),
        "part_energy": pt * np.cosh(eta),
    }
    return {name: values.astype(np.float32, copy=False) for name, values in columns.items()}


def _to_text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
