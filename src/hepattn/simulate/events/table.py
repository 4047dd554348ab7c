"""Simulated events as tables: objects of each kind in padded slots, and columns of the event."""

# N events, Q candidates for objects, P slots of a kind

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hepattn.simulate.jets.kinematics import Array, mass_of

Tables = dict[str, NDArray[np.void]]
"""``events`` (N,) and, for each kind of objects, (N, P), as structured arrays."""
Flags = NDArray[np.bool_]

JET = np.dtype(
    [("pt", "f4"), ("eta", "f4"), ("phi", "f4"), ("mass", "f4"), ("btag", "i1"), ("valid", "?")]
)
LEPTON = np.dtype(
    [
        ("pt", "f4"),
        ("eta", "f4"),
        ("phi", "f4"),
        ("charge", "i1"),
        ("isolation", "f4"),
        ("valid", "?"),
    ]
)
OBJECTS = {"jets": JET, "electrons": LEPTON, "muons": LEPTON}
"""Columns of each kind; momenta in GeV, angles in radians."""
MAX_OBJECTS = {"jets": 8, "electrons": 4, "muons": 4}
"""Slots of each kind; objects beyond, those of smallest pT, are lost."""
LEPTONS = {"electrons": 11, "muons": 13}
"""PDG code of each kind of leptons."""
LEPTON_MASS = {"electrons": 0.000511, "muons": 0.105658}
"""In GeV."""
BTAGGED = 3
"""Smallest ``btag`` of a jet that counts as tagged."""
BTAG_SHARES = {
    "b": (0.10, 0.08, 0.12, 0.20, 0.50),
    "light": (0.80, 0.13, 0.05, 0.015, 0.005),
}
"""Shares of the categories of ``btag``, 0 to 4, among jets of b quarks and others."""


def fill(kind: str, valid: Flags, columns: Mapping[str, Array]) -> NDArray[np.void]:
    """Put objects into the slots of their kind, those of largest pT first.

    Args:
        kind: jets, electrons or muons.
        valid: True for the candidates that are objects (N, Q).
        columns: Each column of the kind (N, Q).

    Returns:
        Structured array (N, P); zero in empty slots.
    """
    order = np.where(valid, -columns["pt"], np.inf).argsort(axis=1, kind="stable")
    order = order[:, : MAX_OBJECTS[kind]]  # (N, at most P)
    table = np.zeros((len(valid), MAX_OBJECTS[kind]), OBJECTS[kind])
    used = table[:, : order.shape[1]]
    used["valid"] = np.take_along_axis(valid, order, axis=1)
    for name in OBJECTS[kind].names or ():
        if name != "valid":
            used[name] = np.take_along_axis(columns[name], order, axis=1)
    used[~used["valid"]] = 0
    return table


def four_momenta(kind: str, table: NDArray[np.void]) -> Array:
    """Give the four-momenta of objects.

    Args:
        kind: jets, electrons or muons.
        table: Structured array (N, P).

    Returns:
        (E, px, py, pz) in GeV (N, P, 4); zero in empty slots.
    """
    pt, eta, phi = (table[name].astype(float) for name in ("pt", "eta", "phi"))
    mass = table["mass"].astype(float) if kind == "jets" else LEPTON_MASS[kind]
    momentum = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=-1)
    energy = np.sqrt((momentum**2).sum(-1) + np.square(mass))
    vectors = np.concatenate([energy[..., None], momentum], axis=-1)
    return np.where(table["valid"][..., None], vectors, 0.0)


def event_columns(objects: Mapping[str, NDArray[np.void]], soft: Array) -> dict[str, Array]:
    """Sum events up: every column but the missing momentum follows from the stored objects.

    Args:
        objects: Structured array (N, P) of each kind.
        soft: What the detector sees of the transverse momentum beside the objects, and mismeasures,
            in GeV (N, 2).

    Returns:
        Columns (N,): ``met`` and ``met_phi``, the missing transverse momentum; ``ht``, the sum of
        the jets' pT; ``num_jets``, ``num_btags``, ``num_leptons``; ``eta_mean`` of the jets;
        ``delta_eta_jj`` and ``m_jj`` of the two leading jets; ``m_ll`` of the two leading leptons;
        ``lepton_pt``, ``lepton_eta`` and ``lepton_flavour`` (11 or 13) of the leading lepton. What
        an event lacks is 0.
    """
    vectors = {kind: four_momenta(kind, table) for kind, table in objects.items()}
    seen = sum(momenta[..., 1:3].sum(1) for momenta in vectors.values())  # (N, 2)
    missing = -(seen + soft)
    jets = objects["jets"]
    pairs = jets["valid"][:, 1]
    num_jets = jets["valid"].sum(1)
    leptons, flavour, momenta = _leptons(objects, vectors)
    leading = leptons[:, 0]
    return {
        "met": np.hypot(*missing.T),
        "met_phi": np.arctan2(missing[:, 1], missing[:, 0]),
        "ht": jets["pt"].sum(1, dtype=float),
        "num_jets": num_jets,
        "num_btags": (jets["btag"] >= BTAGGED).sum(1),
        "num_leptons": leptons["valid"].sum(1),
        "eta_mean": jets["eta"].sum(1, dtype=float) / np.maximum(num_jets, 1),
        "delta_eta_jj": np.where(pairs, np.abs(jets["eta"][:, 0] - jets["eta"][:, 1]), 0.0),
        "m_jj": np.where(pairs, mass_of(vectors["jets"][:, :2].sum(1)), 0.0),
        "m_ll": np.where(leptons["valid"][:, 1], mass_of(momenta[:, :2].sum(1)), 0.0),
        "lepton_pt": leading["pt"],
        "lepton_eta": leading["eta"],
        "lepton_flavour": np.where(leading["valid"], flavour[:, 0], 0),
    }


def _leptons(
    objects: Mapping[str, NDArray[np.void]], vectors: Mapping[str, Array]
) -> tuple[NDArray[np.void], NDArray[np.integer], Array]:
    """Put electrons and muons together, those of largest pT first, with codes and momenta."""
    table = np.concatenate([objects[kind] for kind in LEPTONS], axis=1)
    codes = np.concatenate(
        [np.full(objects[kind].shape, code) for kind, code in LEPTONS.items()], axis=1
    )
    momenta = np.concatenate([vectors[kind] for kind in LEPTONS], axis=1)
    order = (-table["pt"]).argsort(axis=1, kind="stable")
    return (
        np.take_along_axis(table, order, axis=1),
        np.take_along_axis(codes, order, axis=1),
        np.take_along_axis(momenta, order[..., None], axis=1),
    )


def event_table(label: Array, weight: Array, columns: Mapping[str, Array]) -> NDArray[np.void]:
    """Make the table of the events: floats in single precision, integers in 64 bits.

    Args:
        label: Number of the class (N,).
        weight: Weight (N,).
        columns: Further columns (N,).

    Returns:
        Structured array (N,), whose ``event_number`` is still 0.
    """
    number = np.zeros(len(label), dtype=int)
    columns = {"label": label, "weight": weight, "event_number": number, **columns}
    types = [(name, "i8" if c.dtype.kind in "iub" else "f4") for name, c in columns.items()]
    table = np.empty(len(label), types)
    for name, column in columns.items():
        table[name] = column
    return table


def take(tables: Tables, index: Flags | NDArray[np.integer]) -> Tables:
    """Choose events.

    Args:
        tables: The events.
        index: Mask or numbers of the events.

    Returns:
        Those events.
    """
    return {name: table[index] for name, table in tables.items()}


def join(parts: Sequence[Tables]) -> Tables:
    """Put events behind each other.

    Args:
        parts: Events, at least one part.

    Returns:
        All of them.
    """
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def mc_weights(num: int, negative_share: float, rng: np.random.Generator) -> Array:
    """Draw weights of one magnitude, some negative, with mean 1.

    Args:
        num: How many.
        negative_share: Share of negative ones, below one half.
        rng: Source of randomness.

    Returns:
        Weights (num,).
    """
    sign = np.where(rng.random(num) < negative_share, -1.0, 1.0)
    return sign / (1.0 - 2.0 * negative_share)
