"""Small files of events."""

from pathlib import Path

import awkward as ak
import h5py
import numpy as np
import uproot

from hepattn.data.events import Momentum, write_events

CLASSES = {"ttbar": 0, "zjets": 1, "signal": 5}
JETS = [("pt", "f4"), ("eta", "f4"), ("phi", "f4"), ("mass", "f4"), ("btag", "i4")]
MUONS = [("pt", "f4"), ("eta", "f4"), ("phi", "f4"), ("charge", "i4")]
MOMENTA = {
    "jets": Momentum(pt="pt", eta="eta", phi="phi", mass="mass"),
    "muons": Momentum(pt="pt", eta="eta", phi="phi", mass=0.105658),
}
Tables = dict[str, np.ndarray]


def draw_tables(num_events: int, seed: int = 0) -> Tables:
    """Events with up to 4 jets and 2 muons; padding holds NaN, and some events have no objects."""
    rng = np.random.default_rng(seed)
    events = np.zeros(
        num_events,
        [("label", "i4"), ("weight", "f4"), ("event_number", "i8"), ("met", "f4"), ("year", "i2")],
    )
    events["label"] = rng.choice(list(CLASSES.values()), num_events)
    events["weight"] = rng.normal(1, 0.5, num_events)
    events["event_number"] = rng.permutation(10 * num_events)[:num_events]
    events["met"] = rng.exponential(50, num_events)
    events["year"] = rng.integers(2016, 2019, num_events)
    jets = _draw_objects(rng, num_events, 4, JETS)
    jets["mass"] = np.where(jets["valid"], rng.exponential(5, jets.shape), np.nan)
    jets["btag"] = rng.integers(0, 2, jets.shape)
    muons = _draw_objects(rng, num_events, 2, MUONS)
    muons["charge"] = rng.choice([-1, 1], muons.shape)
    return {"events": events, "jets": jets, "muons": muons}


def _draw_objects(
    rng: np.random.Generator, num_events: int, num_slots: int, columns: list[tuple[str, str]]
) -> np.ndarray:
    table = np.zeros((num_events, num_slots), [*columns, ("valid", "?")])
    table["valid"] = rng.random(table.shape) < 0.6
    for name, values in (
        ("pt", rng.exponential(30, table.shape) + 5),
        ("eta", rng.normal(0, 1.5, table.shape)),
        ("phi", rng.uniform(-np.pi, np.pi, table.shape)),
    ):
        table[name] = np.where(table["valid"], values, np.nan)
    return table


def write_ours(path: Path, tables: Tables) -> Path:
    write_events(path, tables, CLASSES)
    return path


def write_root(path: Path, tables: Tables, prefixes: dict[str, str]) -> Path:
    """Write flat branches and, for each kind, jagged ones."""
    events = tables["events"]
    branches = {name: events[name] for name in events.dtype.names}
    for kind, prefix in prefixes.items():
        table = tables[kind]
        counts = table["valid"].sum(1)
        for name in set(table.dtype.names) - {"valid"}:
            flat = table[name][table["valid"]]
            branches[prefix + name] = ak.unflatten(flat, counts)
    with uproot.recreate(path) as file:
        tree = file.mktree("events", {n: ak.type(x).content for n, x in map_arrays(branches)})
        half = len(events) // 2
        for rows in (slice(half), slice(half, None)):  # two baskets
            tree.extend({name: values[rows] for name, values in branches.items()})
    return path


def map_arrays(branches: dict[str, np.ndarray | ak.Array]) -> list[tuple[str, ak.Array]]:
    return [(name, ak.Array(values)) for name, values in branches.items()]


def write_grouped(path: Path, tables: Tables, groups: dict[str, str]) -> Path:
    """Write one dataset a column."""
    with h5py.File(path, "w") as file:
        for name in tables["events"].dtype.names:
            file[f"INPUTS/Event/{name}"] = tables["events"][name]
        for kind, group in groups.items():
            file[f"{group}/MASK"] = tables[kind]["valid"]
            for name in set(tables[kind].dtype.names) - {"valid"}:
                file[f"{group}/{name}"] = tables[kind][name]
    return path


def write_padded(path: Path, tables: Tables, pad_value: float, metadata: str | None) -> Path:
    """Write structured datasets whose padding holds a value."""
    with h5py.File(path, "w") as file:
        file["events"] = tables["events"]
        for kind in set(tables) - {"events"}:
            table = tables[kind]
            names = [name for name in table.dtype.names if name != "valid"]
            padded = np.zeros(table.shape, [(name, table.dtype[name]) for name in names])
            for name in names:
                padded[name][table["valid"]] = table[name][table["valid"]]
                if table.dtype[name].kind == "f":
                    padded[name][~table["valid"]] = pad_value
            file[kind] = padded
        if metadata is not None:
            file["metadata"] = metadata
    return path
