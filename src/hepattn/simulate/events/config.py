"""What a set of simulated events is made of."""

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["search", "ratio", "calibration", "fakes"]
PROCESSES = ("qcd", "wjets", "zjets", "ttbar", "x_to_bb", "zprime_to_ll", "top_partner")
"""The processes of a search, in the order of their labels: four backgrounds, three signals."""
REGIONS = ("mc_loose", "mc_tight", "data_loose", "data_tight")
"""The samples of a fakes estimate, in the order of their labels."""


@dataclass(frozen=True)
class EventsConfig:
    """Options of the simulation of whole events.

    Args:
        kind: ``search``: signals with resonances on top of backgrounds. ``ratio``: a numerator and
            a denominator of known density ratio. ``calibration``: labels drawn from known
            probabilities. ``fakes``: data and simulation with tight and loose leptons, of known
            fake factor.
        seed: Seed of the data set; the events depend on it and not on the number of processes.
        processes: Of a search, in equal numbers.
        num_classes: Number of classes of a calibration set.
        temperature: Of the over-confident logits in a calibration set: their softmax is calibrated
            once they are divided by it.
        mc_per_data: Simulated events for each one expected in data, in a fakes set.
        negative_share: Share of simulated events with a negative weight; the sum of the weights
            does not depend on it.
        shard_size: Events in a file.

    Raises:
        ValueError: If a value is outside its range.
    """

    kind: Kind = "search"
    seed: int = 0
    processes: tuple[str, ...] = PROCESSES
    num_classes: int = 3
    temperature: float = 2.0
    mc_per_data: float = 2.0
    negative_share: float = 0.0
    shard_size: int = 50_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "processes", tuple(self.processes))  # a list from JSON
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r} must be one of {get_args(Kind)}")
        for name in self.processes:
            if name not in PROCESSES:
                raise ValueError(f"processes holds {name!r}; choose from {', '.join(PROCESSES)}")
        if not self.processes or len(set(self.processes)) < len(self.processes):
            raise ValueError(f"processes={self.processes} must name at least one, each once")
        if self.num_classes < 2:
            raise ValueError(f"num_classes={self.num_classes} must be at least 2")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")
        if not 0 <= self.negative_share < 0.5:
            raise ValueError(
                f"negative_share={self.negative_share} must be at least 0 and below 0.5, so that "
                "the sum of the weights is positive"
            )
        for name in ("temperature", "mc_per_data", "shard_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")

    @property
    def classes(self) -> dict[str, int]:
        """Label of each class by name."""
        if self.kind == "search":
            return {name: PROCESSES.index(name) for name in self.processes}
        if self.kind == "ratio":
            return {"denominator": 0, "numerator": 1}
        if self.kind == "calibration":
            return {f"class_{label}": label for label in range(self.num_classes)}
        return {name: label for label, name in enumerate(REGIONS)}
