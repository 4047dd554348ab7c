"""What a set of simulated jets is made of."""

from dataclasses import dataclass
from typing import Literal

CLASSES = ("QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl")
"""The ten classes of JetClass, in the order of their labels."""
JETNET_CLASSES = ("g", "q", "t")
"""Gluon, quark and top jets, in the order of JetNet's types; ``t`` are the jets of ``Tbqq``."""
ALL_CLASSES = (*CLASSES, *JETNET_CLASSES)
PARTON_CLASSES = ("QCD", "g", "q")
"""Classes whose jets start with a single parton."""


@dataclass(frozen=True)
class JetConfig:
    """Options of the jet simulation.

    Args:
        classes: Which classes to make, in equal numbers: those of JetClass, or ``g``, ``q`` and
            ``t`` (only in the layout of JetNet).
        seed: Seed of the data set; the jets depend on it and not on the number of processes.
        generator: A small parton shower in numpy, or Pythia 8 with fastjet (needs the extra
            ``generators``).
        min_pt: Smallest transverse momentum of a jet in GeV.
        max_pt: Largest transverse momentum of a jet in GeV.
        max_eta: Largest absolute pseudorapidity of a jet.
        radius: Radius of the jets in the plane of eta and phi.
        max_particles: Particles stored of a jet, those of largest pT; the jet's own momentum
            is the sum of all.
        layout: File format: ROOT as JetClass, or HDF5 as JetNet.
        shard_size: Jets in a file.

    Raises:
        ValueError: If a value is outside its range.
    """

    classes: tuple[str, ...] = CLASSES
    seed: int = 0
    generator: Literal["shower", "pythia"] = "shower"
    min_pt: float = 500.0
    max_pt: float = 1000.0
    max_eta: float = 2.0
    radius: float = 0.8
    max_particles: int = 200
    layout: Literal["jetclass", "jetnet"] = "jetclass"
    shard_size: int = 10_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))  # a list, where JSON was read
        for name in self.classes:
            if name not in ALL_CLASSES:
                raise ValueError(f"classes holds {name!r}; choose from {', '.join(ALL_CLASSES)}")
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes={self.classes} must name at least one class, each once")
        for name, allowed in (
            ("generator", ("shower", "pythia")),
            ("layout", ("jetclass", "jetnet")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {allowed}")
        if self.layout == "jetclass" and not set(self.classes) <= set(CLASSES):
            raise ValueError(
                f"classes={self.classes}: JetClass files have no labels for "
                f"{', '.join(JETNET_CLASSES)}; choose layout='jetnet'"
            )
        if not 0 < self.min_pt < self.max_pt:
            raise ValueError(
                f"min_pt={self.min_pt} must be positive and below max_pt={self.max_pt}"
            )
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")
        for name in ("max_eta", "radius", "max_particles", "shard_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
