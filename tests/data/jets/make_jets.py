"""Small files of jets, in every layout."""

import pickle
from pathlib import Path

import awkward as ak
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import uproot

CLASSES = ("QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl")
FLAGS = ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")
PDGIDS = (211, -211, 321, 130, 2112, -2212, 22, 11, -11, 13)

Columns = dict[str, np.ndarray | list[np.ndarray]]


def draw_jets(num_jets: int, seed: int = 0, longest: int = 8) -> Columns:
    """Columns of JetClass; jagged ones as a list of arrays. Some jets have no particles."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, longest + 1, num_jets)
    columns: Columns = {}
    pts = [np.sort(rng.exponential(20, n) + 1)[::-1] for n in counts]
    etas, phis = ([rng.normal(shift, 0.3, n) for n in counts] for shift in (-1.0, 3.0))
    parts = list(zip(pts, etas, phis, strict=True))
    columns["part_px"] = [pt * np.cos(phi) for pt, _, phi in parts]
    columns["part_py"] = [pt * np.sin(phi) for pt, _, phi in parts]
    columns["part_pz"] = [pt * np.sinh(eta) for pt, eta, _ in parts]
    columns["part_energy"] = [pt * np.cosh(eta) for pt, eta, _ in parts]
    for name in ("deta", "dphi", "d0val", "dzval"):
        columns[f"part_{name}"] = [rng.normal(0, 0.3, n) for n in counts]
    for name in ("d0err", "dzerr"):
        columns[f"part_{name}"] = [rng.random(n) for n in counts]
    columns["part_charge"] = [rng.integers(-1, 2, n).astype(float) for n in counts]
    for flag in FLAGS:
        columns[f"part_is{flag}"] = [rng.integers(0, 2, n).astype(float) for n in counts]
    for name in ("pt", "eta", "phi", "energy"):
        columns[f"jet_{name}"] = rng.uniform(1, 500, num_jets)
    label = rng.integers(0, len(CLASSES), num_jets)
    columns |= {f"label_{name}": label == i for i, name in enumerate(CLASSES)}
    return columns


def to_awkward(columns: Columns) -> dict[str, ak.Array]:
    return {
        name: ak.unflatten(
            np.concatenate([*values, np.empty(0)]).astype(np.float32), [len(x) for x in values]
        )
        if isinstance(values, list)
        else ak.Array(values if values.dtype == bool else values.astype(np.float32))
        for name, values in columns.items()
    }


def write_root(path: Path, columns: Columns, basket: int = 10) -> Path:
    arrays = to_awkward(columns)
    num_jets = len(next(iter(arrays.values())))
    with uproot.recreate(path) as file:
        tree = file.mktree("tree", {name: values.type for name, values in arrays.items()})
        for start in range(0, num_jets, basket):
            tree.extend({name: values[start : start + basket] for name, values in arrays.items()})
    return path


def write_lists(path: Path, columns: Columns, rows: int = 10) -> Path:
    """Parquet with lists, in row groups."""
    arrays = {
        name: pa.array(
            [x.tolist() for x in values] if isinstance(values, list) else values,
            pa.list_(pa.float32()) if isinstance(values, list) else None,
        )
        for name, values in columns.items()
    }
    pq.write_table(pa.table(arrays), path, row_group_size=rows)
    return path


def slots_of(columns: Columns, num_slots: int = 8) -> dict[str, np.ndarray]:
    """Flat columns of the top-tagging reference."""
    flat = {}
    names = {"E": "energy", "PX": "px", "PY": "py", "PZ": "pz"}
    num_jets = len(columns["jet_pt"])
    for slot in range(num_slots):
        for short, name in names.items():
            column = np.zeros(num_jets, np.float32)
            for jet, values in enumerate(columns[f"part_{name}"]):
                if slot < len(values):
                    column[jet] = values[slot]
            flat[f"{short}_{slot}"] = column
    return flat | {"is_signal_new": np.asarray(columns["label_Tbqq"], np.int64)}


def write_flat(path: Path, columns: Columns, rows: int = 10) -> Path:
    pq.write_table(pa.table(slots_of(columns)), path, row_group_size=rows)
    return path


def write_table(path: Path, columns: Columns, reverse: bool = False) -> Path:
    """HDF5 as pandas writes it; ``reverse`` the order of the columns."""
    flat = slots_of(columns)
    label = flat.pop("is_signal_new")
    names = list(flat)[::-1] if reverse else list(flat)
    dtype = [("index", "<i8"), ("values_block_0", "<f4", (len(names),))]
    rows = np.zeros(len(label), [*dtype, ("values_block_1", "<i8", (1,))])
    rows["values_block_0"] = np.stack([flat[name] for name in names], 1)
    rows["values_block_1"][:, 0] = label
    with h5py.File(path, "w") as file:
        options = {"chunks": (4,), "compression": "gzip"} if len(rows) else {}
        data = file.create_dataset("table/table", data=rows, **options)
        data.attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(names, protocol=0))
        data.attrs["values_block_1_kind"] = np.bytes_(pickle.dumps(["is_signal_new"], protocol=0))
    return path


def write_jetnet(path: Path, num_jets: int = 12, num_slots: int = 5) -> Path:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, num_slots + 1, num_jets)
    counts[0] = num_slots
    particles = rng.normal(0, 0.2, (num_jets, num_slots, 4)).astype(np.float32)
    particles[..., 2] = np.sort(rng.random((num_jets, num_slots)))[:, ::-1]
    particles[..., 3] = np.arange(num_slots) < counts[:, None]
    particles *= particles[..., 3:]
    columns = [rng.integers(0, 3, num_jets), rng.uniform(500, 1000, num_jets)]
    columns += [rng.normal(0, 1, num_jets), rng.uniform(50, 200, num_jets), counts]
    with h5py.File(path, "w") as file:
        file["particle_features"] = particles
        file["jet_features"] = np.stack(columns, 1).astype(np.float32)
        file["particle_features"].attrs["names"] = ["etarel", "phirel", "ptrel", "mask"]
        file["jet_features"].attrs["names"] = ["type", "pt", "eta", "mass", "num_particles"]
        file.attrs["classes"] = ["q", "W", "t"]
    return path


def write_npz(path: Path, num_jets: int = 20, pdgid: bool = True) -> Path:
    rng = np.random.default_rng(0)
    x = np.zeros((num_jets, 6, 4))
    counts = rng.integers(0, 7, num_jets)
    counts[0] = 6
    real = np.arange(6) < counts[:, None]
    x[..., 0] = np.sort(rng.exponential(20, (num_jets, 6)) + 1)[:, ::-1]
    x[..., 1:3] = rng.normal(0, 1, (num_jets, 6, 2))
    x[..., 3] = rng.choice(PDGIDS, (num_jets, 6)) * pdgid
    np.savez(path, X=x * real[..., None], y=rng.integers(0, 2, num_jets).astype(float))
    return path
