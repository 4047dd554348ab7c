"""What a set of simulated calorimeter events is made of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class XecConfig:
    """Options of the simulation of the liquid-xenon calorimeter.

    Args:
        seed: Seed of the data set; an event depends on it and on its own number only.
        min_energy: Smallest energy of the photon in GeV.
        max_energy: Largest one; the energies are uniform in between, and all alike if both are the
            same, such as the 0.0528 GeV of mu -> e gamma.
        num_deposits: Points along the shower that give off light.
        light_yield: Scintillation photons for each MeV.
        sipm_pde: Probability that a photon which hits a SiPM is detected.
        pmt_pde: The same of a photomultiplier.
        absorption_length: Of the scintillation light in xenon, in cm.
        diffuse_share: Light that reaches sensors after scattering or reflection, beside the direct
            one.
        calibration_spread: Relative error of the photon scale of a channel, constant in a run.
        time_spread: Error of the time of a channel with one photoelectron in ns; it falls as the
            square root of their number.
        time_noise: Error of the time of a channel that more light does not reduce, in ns.
        time_threshold: Smallest number of photons of a channel that has a time.
        max_time_offset: The offset of an event's times is uniform between its negative and it, in
            ns.
        dead_share: Share of channels that are dead one by one, others in each run.
        num_dead_clusters: Number of groups of neighbours that are dead besides.
        run_size: Events of a run.
        shard_size: Events in a file.

    Raises:
        ValueError: If a value is outside its range.
    """

    seed: int = 0
    min_energy: float = 0.015
    max_energy: float = 0.060
    num_deposits: int = 12
    light_yield: float = 40_000.0
    sipm_pde: float = 0.15
    pmt_pde: float = 0.16
    absorption_length: float = 200.0
    diffuse_share: float = 0.15
    calibration_spread: float = 0.04
    time_spread: float = 5.0
    time_noise: float = 0.1
    time_threshold: float = 10.0
    max_time_offset: float = 10.0
    dead_share: float = 0.02
    num_dead_clusters: int = 3
    run_size: int = 100
    shard_size: int = 1_000

    def __post_init__(self) -> None:
        if not 0 < self.min_energy <= self.max_energy:
            raise ValueError(
                f"min_energy={self.min_energy} must be positive and not above "
                f"max_energy={self.max_energy}"
            )
        for name in ("num_deposits", "light_yield", "absorption_length", "run_size", "shard_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        for name in (
            "seed",
            "diffuse_share",
            "calibration_spread",
            "time_spread",
            "time_noise",
            "time_threshold",
            "max_time_offset",
            "num_dead_clusters",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        for name in ("sipm_pde", "pmt_pde"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0 and at most 1")
        if not 0 <= self.dead_share < 1:
            raise ValueError(f"dead_share={self.dead_share} must be at least 0 and below 1")
