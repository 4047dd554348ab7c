"""Jets from Pythia 8 and fastjet (extra ``generators``)."""

# N jets, P particles, Q partons of the decay

import importlib
from types import ModuleType
from typing import Any

import numpy as np

from hepattn.simulate.jets.config import ALL_CLASSES, PARTON_CLASSES, JetConfig
from hepattn.simulate.jets.detector import Jets, accepted, detect
from hepattn.simulate.jets.kinematics import Array, directions, distance
from hepattn.simulate.jets.particles import SPECIES, Particles

COMMON = (
    "Print:quiet = on",
    "Beams:eCM = 13000.",
    # As in the shower, what decays outside the tracker counts as stable.
    "ParticleDecays:limitCylinder = on",
    "ParticleDecays:xyMax = 1000.",
    "ParticleDecays:zMax = 3000.",
    "Random:setSeed = on",
)
INVISIBLE_Z = ("23:onMode = off", "23:onIfAny = 12 14 16")
HIGGS = ("HiggsSM:ffbar2HZ = on", *INVISIBLE_Z, "25:onMode = off")
HADRONIC_W = ("24:onMode = off", "24:onIfAny = 1 2 3 4 5")
TOP = ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on", "24:onMode = off")
Z_AND_JET = ("WeakBosonAndParton:qg2gmZq = on", "WeakBosonAndParton:qqbar2gmZg = on")
SETTINGS: dict[str, tuple[str, ...]] = {
    "QCD": (*Z_AND_JET, "WeakZ0:gmZmode = 2", *INVISIBLE_Z),
    "Hbb": (*HIGGS, "25:onIfMatch = 5 -5"),
    "Hcc": (*HIGGS, "25:onIfMatch = 4 -4"),
    "Hgg": (*HIGGS, "25:onIfMatch = 21 21"),
    "H4q": (*HIGGS, "25:onIfMatch = 24 -24", *HADRONIC_W),
    "Hqql": (*HIGGS, "25:onIfMatch = 24 -24", *HADRONIC_W),
    "Zqq": (*Z_AND_JET, "WeakZ0:gmZmode = 2", "23:onMode = off", "23:onIfAny = 1 2 3 4 5"),
    "Wqq": ("WeakBosonAndParton:qg2Wq = on", "WeakBosonAndParton:qqbar2Wg = on", *HADRONIC_W),
    "Tbqq": (*TOP, "24:onIfAny = 1 2 3 4 5"),
    "Tbl": (*TOP, "24:onIfAny = 11 13"),
    "g": ("WeakBosonAndParton:qqbar2gmZg = on", "WeakZ0:gmZmode = 2", *INVISIBLE_Z),
    "q": ("WeakBosonAndParton:qg2gmZq = on", "WeakZ0:gmZmode = 2", *INVISIBLE_Z),
    "t": (*TOP, "24:onIfAny = 1 2 3 4 5"),
}
"""Process and forced decays of each class."""
LEPTONIC_W = {
    charge: (
        "24:onMode = off",
        f"24:on{hadronic}IfAny = 1 2 3 4 5",
        f"24:on{leptonic}IfAny = 11 13",
    )
    for charge, hadronic, leptonic in ((1, "Neg", "Pos"), (-1, "Pos", "Neg"))
}
"""Decays of W bosons of which the one of this charge gives a lepton and the other quarks."""
RESONANCE = {"H": 25, "Z": 23, "W": 24, "T": 6}
"""PDG code by the first letter of the class."""
MARGIN = 1.5
"""Particles this far outside the range of eta can still matter for the clustering."""


def load(name: str) -> ModuleType:
    """Import one of the generator packages.

    Args:
        name: pythia8mc or fastjet.

    Returns:
        The module.

    Raises:
        ImportError: If the extra is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"generator='pythia' needs {name}, which is not installed: it comes with the extra "
            "'generators', pip install 'hepattn[generators]'; or choose generator='shower'"
        ) from error


class PythiaSource:
    """Jets of one class from Pythia 8, clustered with anti-kT.

    Args:
        name: The class.
        config: The cuts.
        rng: Source of randomness; seeds Pythia.

    Attributes:
        max_batch: Most events of a batch; more would waste events and are no faster.

    Raises:
        ImportError: If the extra is not installed.
        RuntimeError: If Pythia does not start.
    """

    max_batch = 64

    def __init__(self, name: str, config: JetConfig, rng: np.random.Generator) -> None:
        self.name = name
        self.config = config
        self.rng = rng
        self._fastjet = load("fastjet")
        self._definition = self._fastjet.JetDefinition(
            self._fastjet.antikt_algorithm, config.radius
        )
        self._pythia = load("pythia8mc").Pythia("", False)
        upper = config.max_pt * (2.0 if name in ("Hqql", "Tbl") else 1.2)
        limits = f"PhaseSpace:pTHatMin = {0.95 * config.min_pt}", f"PhaseSpace:pTHatMax = {upper}"
        seed = f"Random:seed = {rng.integers(1, 900_000_000)}"
        for setting in (*COMMON, *SETTINGS[name], *limits, seed):
            self._set(setting)
        if not self._pythia.init():
            raise RuntimeError("Pythia 8 did not start; its own messages above say why")

    def batch(self, num: int) -> Jets:
        """Try to make jets.

        Args:
            num: Events to generate.

        Returns:
            The jets that pass the cuts.
        """
        rows, partons = [], []
        for number in range(num):
            if self.name == "Hqql":  # leptons of both charges in turn
                for setting in LEPTONIC_W[1 if number % 2 else -1]:
                    self._set(setting)
            if not self._pythia.next():
                continue
            for jet, inside in self._jets(self._pythia.event):
                rows.append(jet)
                partons.append(inside)
        size = len(rows)
        if not size:
            return _empty(self.rng)
        jet = np.repeat(np.arange(size), [len(table) for table in rows])
        table = np.concatenate(rows)
        particles = Particles(jet, table[:, 0].astype(np.int64), table[:, 1:5], table[:, 5:])
        jets = detect(particles, size, ALL_CLASSES.index(self.name), self.rng)
        held = None if self.name in PARTON_CLASSES else np.stack(partons)
        return jets.take(accepted(jets, held, self.config))

    def _set(self, setting: str) -> None:
        if not self._pythia.readString(setting):
            raise RuntimeError(f"Pythia 8 does not know the setting {setting!r}")

    def _jets(self, event: Any) -> list[tuple[Array, Array]]:
        """Find the jets of the class's particle: constituents (P, 8) and partons (Q, 4)."""
        table = self._visible(event)
        inputs = [self._fastjet.PseudoJet(*row) for row in table[:, [2, 3, 4, 1]].tolist()]
        for number, one in enumerate(inputs):
            one.set_user_index(number)
        clusters = self._fastjet.ClusterSequence(inputs, self._definition)
        found = self._fastjet.sorted_by_pt(clusters.inclusive_jets(0.8 * self.config.min_pt))
        members = [table[[c.user_index() for c in jet.constituents()]] for jet in found]
        if self.name in PARTON_CLASSES:  # the hardest jet, which recoils against the neutrinos
            return [(rows, np.empty((0, 4))) for rows in members[:1]]
        chosen = []
        for partons in self._decays(event):
            for rows in members:
                eta, phi = directions(rows[:, 1:5].sum(0))
                if (distance(*directions(partons), eta, phi) < self.config.radius).all():
                    chosen.append((rows, partons))
                    break
        return chosen

    def _visible(self, event: Any) -> Array:
        """List what can reach the detector: code, four-momentum (GeV), vertex (mm)."""
        rows = [
            (p.id(), p.e(), p.px(), p.py(), p.pz(), p.xProd(), p.yProd(), p.zProd())
            for p in event
            if p.isFinal() and p.isVisible()
        ]
        table = np.array(rows, dtype=float).reshape(-1, 8)
        known = np.isin(np.abs(table[:, 0]), [*SPECIES])
        eta, _ = directions(table[:, 1:5])
        return table[known & (np.abs(eta) < self.config.max_eta + MARGIN)]

    def _decays(self, event: Any) -> list[Array]:
        """List the partons and charged leptons (Q, 4) of each of the class's particles."""
        code = RESONANCE[self.name[0].upper()]
        last = {p.iBotCopyId() for p in event if abs(p.id()) == code}
        return [np.array(partons) for place in sorted(last) if (partons := _legs(event, place))]


def _legs(event: Any, place: int) -> list[tuple[float, float, float, float]]:
    found = []
    for daughter in event.at(place).daughterList():
        p = event.at(daughter)
        if abs(p.id()) in (23, 24):
            found += _legs(event, p.iBotCopyId())
        elif abs(p.id()) not in (12, 14, 16):
            found.append((p.e(), p.px(), p.py(), p.pz()))
    return found


def _empty(rng: np.random.Generator) -> Jets:
    none = Particles(*(np.empty(shape) for shape in (0, 0, (0, 4), (0, 3))))
    none = none._replace(jet=none.jet.astype(np.int64), pdg_id=none.pdg_id.astype(np.int64))
    return detect(none, 0, 0, rng)
