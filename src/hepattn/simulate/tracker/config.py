"""What a simulated event is made of."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrackerConfig:
    """Options of the tracker simulation.

    Args:
        num_particles: Charged particles in an event, exactly.
        seed: Seed of the data set; an event depends on it and on its number only.
        generator: Source of the primary particles: a parametrised gun, or Pythia 8 minimum-bias
            collisions (needs the extra ``generators``).
        min_pt: Smallest transverse momentum in GeV.
        max_eta: Largest absolute pseudorapidity of a particle.
        secondary_fraction: Share of particles that start away from the beam line.
        field: Solenoid field along z in tesla.
        material: Thickness of a layer in radiation lengths at normal incidence; 0 switches
            multiple scattering off.
        absorption: Probability at normal incidence that a particle ends in a layer.
        inefficiency: Probability that a particle leaves no hit in a layer that it crosses.
        noise_fraction: Expected share of noise among all hits.
        threshold: Smallest charge of a cell, as the path length in mm that releases it on average.

    Raises:
        ValueError: If a value is outside its range.
    """

    num_particles: int = 500
    seed: int = 0
    generator: Literal["gun", "pythia8"] = "gun"
    min_pt: float = 0.15
    max_eta: float = 4.0
    secondary_fraction: float = 0.29
    field: float = 2.0
    material: float = 0.025
    absorption: float = 0.01
    inefficiency: float = 0.02
    noise_fraction: float = 0.15
    threshold: float = 0.005

    def __post_init__(self) -> None:
        if self.num_particles < 1:
            raise ValueError(f"num_particles={self.num_particles} must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")
        if self.generator not in ("gun", "pythia8"):
            raise ValueError(f"generator={self.generator!r} must be 'gun' or 'pythia8'")
        for name in ("min_pt", "max_eta", "field"):
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"{name}={value} must be positive")
        for name in ("material", "threshold"):
            value = getattr(self, name)
            if value < 0:
                raise ValueError(f"{name}={value} must not be negative")
        for name in ("secondary_fraction", "absorption", "inefficiency", "noise_fraction"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name}={value} must be at least 0 and below 1")
