"""Feature columns of the particles in jets."""

# J jets, P particles, F features

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.jets.pid import PID_FEATURES, check_pdgid, pid_feature
from hepattn.data.jets.table import JetTable
from hepattn.nn.normalise import Feature

VECTOR = ("part_energy", "part_px", "part_py", "part_pz")
JET_COLUMNS = ("jet_pt", "jet_eta", "jet_phi", "jet_energy")
PDGID = "part_pdgid"
FLOOR = 1e-8  # GeV, for logarithms


class Kinematics:
    """Quantities that several features need, each computed once.

    Args:
        table: The jets.
    """

    def __init__(self, table: JetTable) -> None:
        self.table = table

    @cached_property
    def pt(self) -> np.ndarray:
        """Transverse momentum (P) in GeV."""
        columns = self.table.particles
        return np.sqrt(columns["part_px"] ** 2 + columns["part_py"] ** 2)

    @cached_property
    def pt_log(self) -> np.ndarray:
        """Logarithm of the transverse momentum (P)."""
        return np.log(np.maximum(self.pt, FLOOR))

    @cached_property
    def e_log(self) -> np.ndarray:
        """Logarithm of the energy (P)."""
        return np.log(np.maximum(self.table.particles["part_energy"], FLOOR))

    @cached_property
    def deta(self) -> np.ndarray:
        """Distance in η from the jet (P), positive where the particle is further forward."""
        if "part_deta" in self.table.particles:
            return self.table.particles["part_deta"]
        eta = np.arcsinh(self.table.particles["part_pz"] / np.maximum(self.pt, FLOOR))
        jet_eta = self.table.jets["jet_eta"]
        sign = np.where(jet_eta < 0, -1, 1).astype(np.float32)
        return (eta - self.spread(jet_eta)) * self.spread(sign)

    @cached_property
    def dphi(self) -> np.ndarray:
        """Distance in φ from the jet (P), from -π to π."""
        if "part_dphi" in self.table.particles:
            return self.table.particles["part_dphi"]
        columns = self.table.particles
        dphi = np.arctan2(columns["part_py"], columns["part_px"])
        dphi -= self.spread(self.table.jets["jet_phi"])
        return dphi - np.float32(2 * np.pi) * np.round(dphi / np.float32(2 * np.pi))

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Give each particle the value of its jet (J) → (P)."""
        return np.repeat(values, self.table.counts)

    def spread_log(self, name: str) -> np.ndarray:
        """Give each particle the logarithm of a column of its jet."""
        return self.spread(np.log(np.maximum(self.table.jets[name], FLOOR)))


# What each feature is made of, and how.
COMPUTED: dict[str, tuple[tuple[str, ...], Callable[[Kinematics], np.ndarray]]] = {
    "part_pt_log": ((), lambda jets: jets.pt_log),
    "part_e_log": ((), lambda jets: jets.e_log),
    "part_logptrel": (("jet_pt",), lambda jets: jets.pt_log - jets.spread_log("jet_pt")),
    "part_logerel": (("jet_energy",), lambda jets: jets.e_log - jets.spread_log("jet_energy")),
    "part_deltaR": (("part_deta", "part_dphi"), lambda jets: np.sqrt(jets.deta**2 + jets.dphi**2)),
    "part_deta": (("part_deta",), lambda jets: jets.deta),
    "part_dphi": (("part_dphi",), lambda jets: jets.dphi),
    "part_d0": (("part_d0val",), lambda jets: np.tanh(jets.table.particles["part_d0val"])),
    "part_dz": (("part_dzval",), lambda jets: np.tanh(jets.table.particles["part_dzval"])),
}
# What a column is computed from where a source lacks it.
SUBSTITUTES = {"part_deta": "jet_eta", "part_dphi": "jet_phi"}


def check_features(features: Sequence[Feature], available: Collection[str], name: str) -> None:
    """Refuse features that a source cannot give, all at once.

    A feature with a value for ``missing`` can always be given.

    Args:
        features: The feature list.
        available: Columns of the source.
        name: What the message calls the source.

    Raises:
        DataError: If one is unknown, or made of columns that the source lacks.
    """
    lacking = [
        feature.name
        for feature in features
        if feature.missing is None and find_columns(feature.name, available) is None
    ]
    if lacking:
        raise DataError.of(
            name,
            "features",
            found=f"no {', '.join(lacking)} in {', '.join(sorted(available))}",
            expected=f"features among {', '.join((*COMPUTED, *PID_FEATURES))}, or stored columns",
            remedy="choose a feature list that fits the source, or give the features `missing`",
        )


def find_columns(feature: str, available: Collection[str]) -> set[str] | None:
    """Columns that a feature needs of a source, beside the four-vectors.

    Args:
        feature: Name of the feature.
        available: Columns of the source.

    Returns:
        Their names, among them those of the jet, which ``fill_jets`` makes where they lack; or
        None where the source cannot give the feature.
    """
    if feature in COMPUTED:
        needed = {
            SUBSTITUTES.get(column, column) if column not in available else column
            for column in COMPUTED[feature][0]
        }
        return needed if needed <= {*available, *JET_COLUMNS} else None
    if feature in available and feature.startswith("part_"):
        return {feature}
    if feature in PID_FEATURES and PDGID in available:
        return {PDGID}
    return None


def needed_columns(features: Sequence[Feature], available: Collection[str]) -> frozenset[str]:
    """Stored columns that a feature list reads.

    Args:
        features: The feature list, checked.
        available: Columns of the source.
    """
    columns = set(VECTOR)
    for feature in features:
        columns |= find_columns(feature.name, available) or set()
    return frozenset(columns & set(available))


def fill_jets(table: JetTable, columns: Collection[str]) -> JetTable:
    """Add columns of the jets that the source lacks, from the sum of the four-vectors.

    Args:
        table: The jets with all their particles.
        columns: Names among ``JET_COLUMNS`` that are needed.
    """
    lacking = [name for name in JET_COLUMNS if name in columns and name not in table.jets]
    if not lacking:
        return table
    energy, px, py, pz = (table.sum_of_particles(name) for name in VECTOR)  # (J)
    pt = np.hypot(px, py)
    made = {
        "jet_pt": pt,
        "jet_eta": np.arcsinh(pz / np.maximum(pt, FLOOR)),
        "jet_phi": np.arctan2(py, px),
        "jet_energy": energy,
    }
    filled = {name: made[name].astype(np.float32) for name in lacking}
    return replace(table, jets=table.jets | filled)


def particle_features(table: JetTable, features: Sequence[Feature], name: str) -> np.ndarray:
    """Compute the raw columns of a feature list.

    Logarithms have a floor of 1e-8. Where a source has no ``part_deta`` and ``part_dphi``, they
    are (η - η_jet) sign(η_jet) and the wrapped φ - φ_jet.

    Args:
        table: The jets, with the columns that the features need.
        features: The feature list.
        name: What messages call the source.

    Returns:
        Columns (P, F) in float32, in the order of the list.

    Raises:
        DataError: If a feature cannot be made, or PDG ids say nothing.
    """
    available = {*table.particles, *table.jets}
    check_features(features, available, name)
    kinematics = Kinematics(table)
    pdgid: np.ndarray | None = None
    columns = np.empty((table.num_particles, len(features)), np.float32)  # (P, F)
    for place, feature in enumerate(features):
        if find_columns(feature.name, available) is None:
            columns[:, place] = feature.missing
        elif feature.name in COMPUTED:
            columns[:, place] = COMPUTED[feature.name][1](kinematics)
        elif feature.name in table.particles:
            columns[:, place] = table.particles[feature.name]
        else:
            pdgid = check_pdgid(table.particles[PDGID], name) if pdgid is None else pdgid
            columns[:, place] = pid_feature(pdgid, feature.name)
    return columns


def particle_vectors(table: JetTable) -> np.ndarray:
    """Four-vectors (E, px, py, pz) of the particles (P, 4) in GeV.

    Args:
        table: The jets.
    """
    return np.stack([table.particles[name] for name in VECTOR], 1)
