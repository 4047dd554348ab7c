"""The file formats of jets: ROOT as JetClass has it, HDF5 as JetNet has it."""

# N jets, P particles, K particles kept of a jet

from pathlib import Path

import awkward as ak
import h5py
import numpy as np
import uproot

from hepattn.data.jets.jetnet import PARTICLE_COLUMNS, JetNetWriter
from hepattn.simulate.jets.config import ALL_CLASSES, CLASSES, JetConfig
from hepattn.simulate.jets.detector import Jets
from hepattn.simulate.jets.kinematics import Array, directions, mass_of

SUFFIX = {"jetclass": ".root", "jetnet": ".h5"}
FLAGS = {
    "isChargedHadron": (211,),
    "isNeutralHadron": (130,),
    "isPhoton": (22,),
    "isElectron": (11,),
    "isMuon": (13,),
}
"""PDG codes behind the flags of JetClass."""


def write_jets(path: Path, jets: Jets, config: JetConfig) -> None:
    """Write jets to one file.

    JetClass files have a label for each of the ten classes, whichever are there; JetNet files
    number the classes of the config, and name them in the attribute ``classes``.

    Args:
        path: The file.
        jets: The jets.
        config: Names the layout, the classes and how many particles are kept.
    """
    if config.layout == "jetclass":
        _write_jetclass(path, jets, config.max_particles)
    else:
        _write_jetnet(path, jets, config)


def count_jets(path: Path, layout: str) -> int:
    """Count the jets of a file.

    Args:
        path: The file.
        layout: jetclass or jetnet.

    Returns:
        How many.
    """
    if layout == "jetclass":
        with uproot.open(path) as file:
            return int(file["tree"].num_entries)
    with h5py.File(path) as file:
        return len(file["jet_features"])


def relative_directions(jets: Jets) -> tuple[Array, Array]:
    """Give the direction of each particle seen from its jet's axis.

    Args:
        jets: The jets.

    Returns:
        Difference in eta, and in phi wrapped to [-pi, pi) (P,).
    """
    eta, phi = directions(jets.particles)
    jet_eta, jet_phi = (np.repeat(c, jets.num_particles) for c in directions(jets.momentum))
    return eta - jet_eta, (phi - jet_phi + np.pi) % (2 * np.pi) - np.pi


def _kept(jets: Jets, max_particles: int) -> tuple[Array, Array]:
    """Find the particles to write: their place in the jet and a mask (P,)."""
    num = jets.num_particles
    place = np.arange(num.sum()) - np.repeat(np.cumsum(num) - num, num)
    return place, place < max_particles


def _write_jetclass(path: Path, jets: Jets, max_particles: int) -> None:
    _, kept = _kept(jets, max_particles)
    num = np.minimum(jets.num_particles, max_particles)
    jet_eta, jet_phi = directions(jets.momentum)
    deta, dphi = relative_directions(jets)
    kind = np.abs(jets.pdg_id)
    lepton = np.isin(kind, (11, 13))  # an electron, charge -1, has a positive code
    charge = np.sign(jets.pdg_id) * (np.isin(kind, (211,)).astype(int) - lepton)
    columns = {
        **dict(zip(("px", "py", "pz"), jets.particles[:, 1:].T, strict=True)),
        "energy": jets.particles[:, 0],
        "deta": deta * np.repeat(np.where(jet_eta < 0, -1.0, 1.0), jets.num_particles),
        "dphi": dphi,
        "charge": charge,
        **{name: np.isin(kind, codes) for name, codes in FLAGS.items()},
        "d0val": jets.d0,
        "d0err": jets.d0_error,
        "dzval": jets.dz,
        "dzerr": jets.dz_error,
    }
    jagged = {
        name: ak.unflatten(column[kept].astype(np.float32), num) for name, column in columns.items()
    }
    table = {
        "part": ak.zip(jagged),  # branches part_px and so on, with npart
        "jet_pt": np.hypot(jets.momentum[:, 1], jets.momentum[:, 2]),
        "jet_eta": jet_eta,
        "jet_phi": jet_phi,
        "jet_energy": jets.momentum[:, 0],
        "jet_nparticles": num,
        "jet_sumP4_mass": mass_of(jets.momentum),
    }
    table |= {name: np.asarray(c, np.float32) for name, c in table.items() if name != "part"}
    table |= {f"label_{name}": jets.label == label for label, name in enumerate(CLASSES)}
    with uproot.recreate(path) as file:
        # A TTree, as JetClass has it; an assignment may make another kind of table.
        tree = file.mktree(
            "tree", {name: ak.type(column).content for name, column in table.items()}
        )
        tree.extend(table)


def _write_jetnet(path: Path, jets: Jets, config: JetConfig) -> None:
    place, kept = _kept(jets, config.max_particles)
    pt = np.hypot(jets.momentum[:, 1], jets.momentum[:, 2])
    part_pt = np.hypot(jets.particles[:, 1], jets.particles[:, 2])
    deta, dphi = relative_directions(jets)
    relative = part_pt / np.repeat(pt, jets.num_particles)
    rows = np.stack([deta, dphi, relative, np.ones_like(deta)], axis=-1)
    jet = np.repeat(np.arange(len(pt)), jets.num_particles)
    particles = np.zeros((len(pt), config.max_particles, len(PARTICLE_COLUMNS)), np.float32)
    particles[jet[kept], place[kept]] = rows[kept]  # (N, K, 4)
    eta, _ = directions(jets.momentum)
    num = np.minimum(jets.num_particles, config.max_particles)
    kind = np.zeros(len(ALL_CLASSES))
    kind[[ALL_CLASSES.index(name) for name in config.classes]] = np.arange(len(config.classes))
    table = np.stack([kind[jets.label], pt, eta, mass_of(jets.momentum), num], axis=-1)
    with JetNetWriter(path, config.max_particles, config.classes) as file:
        file.add(particles, table)
