"""Jets with any number of particles, as flat arrays."""

# J jets, P particles of all jets

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

NO_LABEL = -1
ROUNDING = 1e-5  # of squared transverse momenta that are stored in order


@dataclass(frozen=True)
class JetTable:
    """Some jets of a source. The particles of the first jet come first, then the second's.

    Args:
        counts: Number of particles of each jet (J).
        particles: Columns of the particles (P) by name, in float32.
        jets: Columns of the jets (J) by name, in float32.
        label: Number of the class (J), -1 where there is none.
        index: Row in the source (J).
        weight: Weight in the loss (J), by default 1.
    """

    counts: np.ndarray
    particles: dict[str, np.ndarray]
    jets: dict[str, np.ndarray]
    label: np.ndarray
    index: np.ndarray
    weight: np.ndarray | None = None

    @property
    def num_jets(self) -> int:
        """Number of jets."""
        return len(self.counts)

    @property
    def num_particles(self) -> int:
        """Number of particles of all jets."""
        return int(self.counts.sum())

    @cached_property
    def starts(self) -> np.ndarray:
        """First particle of each jet (J)."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def jet_of_particle(self) -> np.ndarray:
        """Jet of each particle (P)."""
        return np.repeat(np.arange(self.num_jets), self.counts)

    def take(self, jets: np.ndarray) -> JetTable:
        """Return some jets, in the given order.

        Args:
            jets: Positions in this table.
        """
        counts = self.counts[jets]
        return replace(
            self._choose(find_particles(self.starts[jets], counts), counts),
            jets={name: values[jets] for name, values in self.jets.items()},
            label=self.label[jets],
            index=self.index[jets],
            weight=None if self.weight is None else self.weight[jets],
        )

    def sort_by_pt(self) -> JetTable:
        """Order the particles by falling pt, in jets where they are not."""
        pt2 = self.particles["part_px"] ** 2 + self.particles["part_py"] ** 2  # (P)
        jet = self.jet_of_particle
        rises = (pt2[1:] > pt2[:-1] * (1 + ROUNDING)) & (jet[1:] == jet[:-1])
        if not rises.any():
            return self
        unsorted = np.zeros(self.num_jets, dtype=bool)
        unsorted[jet[1:][rises]] = True
        # The sort is stable: all others keep the order of the file.
        return self._choose(np.lexsort((-pt2 * unsorted[jet], jet)), self.counts)

    def keep_leading(self, max_particles: int) -> JetTable:
        """Keep the first particles of each jet.

        Args:
            max_particles: Largest number to keep.
        """
        if not self.num_jets or self.counts.max() <= max_particles:
            return self
        counts = np.minimum(self.counts, max_particles)
        return self._choose(find_particles(self.starts, counts), counts)

    def empty(self, bad: np.ndarray) -> JetTable:
        """Take the particles, the label and the weight of some jets away.

        Args:
            bad: True for these jets (J).
        """
        keep = ~bad
        ones = np.ones(self.num_jets, np.float32)
        return replace(
            self._choose(np.flatnonzero(keep[self.jet_of_particle]), self.counts * keep),
            jets={name: np.where(bad, 0, values) for name, values in self.jets.items()},
            label=np.where(bad, NO_LABEL, self.label),
            weight=(ones if self.weight is None else self.weight) * keep,
        )

    def sum_of_particles(self, name: str) -> np.ndarray:
        """Sum a column over the particles of each jet, in float64 (J).

        Args:
            name: Name of the column.
        """
        total = np.zeros(self.num_jets)
        filled = np.flatnonzero(self.counts)
        if len(filled):
            values = self.particles[name].astype(np.float64)
            total[filled] = np.add.reduceat(values, self.starts[filled])
        return total

    def _choose(self, places: np.ndarray, counts: np.ndarray) -> JetTable:
        particles = {name: values[places] for name, values in self.particles.items()}
        return replace(self, counts=counts, particles=particles)


def find_particles(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Places of the first particles of some jets in flat columns.

    Args:
        starts: First particle of each jet.
        counts: How many of each jet.
    """
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + counts, counts)


def concatenate(tables: Sequence[JetTable]) -> JetTable:
    """Put tables with the same columns one after the other.

    Args:
        tables: At least one.
    """
    if len(tables) == 1:
        return tables[0]
    first = tables[0]
    weights = [
        np.ones(table.num_jets, np.float32) if table.weight is None else table.weight
        for table in tables
    ]
    return JetTable(
        counts=np.concatenate([table.counts for table in tables]),
        particles={
            name: np.concatenate([table.particles[name] for table in tables])
            for name in first.particles
        },
        jets={name: np.concatenate([table.jets[name] for table in tables]) for name in first.jets},
        label=np.concatenate([table.label for table in tables]),
        index=np.concatenate([table.index for table in tables]),
        weight=np.concatenate(weights),
    )


def pack(padded: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Take padding out of an array where padded slots hold nothing but zeros.

    Args:
        padded: One value a jet, slot and name (J, N, C).
        names: Names of the columns (C).

    Returns:
        Number of particles of each jet (J) and the flat columns (P) by name.
    """
    real = (padded != 0).any(-1)  # (J, N); NaN is not zero and stays to be found
    flat = padded[real].astype(np.float32, copy=False)  # (P, C)
    columns = {name: np.ascontiguousarray(flat[:, i]) for i, name in enumerate(names)}
    return real.sum(1), columns
