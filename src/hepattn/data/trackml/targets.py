"""Which particles a tracker should find, and which hits are theirs."""

# N hits, P reconstructable particles

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.trackml.event import Event
from hepattn.data.trackml.table import find_rows
from hepattn.physics.coordinates import azimuth, pseudorapidity, transverse

PARTICLE_COLUMNS = ("pt", "eta", "phi", "vz", "charge", "num_hits")
"""Columns of ``Targets.particles``: GeV, -, radians, mm, elementary charges, selected hits."""


@dataclass(frozen=True)
class ParticleSelection:
    """Which hits are read and which particles count as reconstructable.

    Args:
        volumes: Detector volumes whose hits are read; null for all. 7, 8 and 9 are the pixels.
        min_pt: A particle has more transverse momentum than this, in GeV.
        max_eta: A particle's absolute pseudorapidity is below this.
        min_hits: A particle leaves at least this many hits in the volumes.

    Raises:
        ValueError: If the volumes are an empty list or a cut is out of its range.
    """

    volumes: tuple[int, ...] | None = (7, 8, 9)
    min_pt: float = 0.9
    max_eta: float = 2.5
    min_hits: int = 3

    def __post_init__(self) -> None:
        if self.volumes is not None and not self.volumes:
            raise ValueError("volumes=() selects no hits; give volume numbers, or null for all")
        if not self.min_pt >= 0:
            raise ValueError(f"min_pt={self.min_pt} GeV must not be negative")
        if not self.max_eta > 0:
            raise ValueError(f"max_eta={self.max_eta} must be positive")
        if self.min_hits < 1:
            raise ValueError(f"min_hits={self.min_hits} must be at least 1")

    def select(self, event: Event) -> np.ndarray:
        """Hits in the selected volumes (N,) bool."""
        if self.volumes is None:
            return np.ones(event.num_hits, dtype=bool)
        return np.isin(event.hits["volume_id"], self.volumes)


class Targets(NamedTuple):
    """What a tracker should find in one event.

    Attributes:
        selected: Hits in the selected volumes (N,) bool.
        label: Hits of reconstructable particles, among the selected (N,) bool.
        particle_index: Row in ``particles`` of each such hit, -1 for the others (N,) int64.
        particles: Reconstructable particles (P, 6) float32, columns as ``PARTICLE_COLUMNS``, in
            the order of the particles file.
        particle_id: Their ids (P,) int64.
        num_particle_hits: How many selected hits the particle of each selected hit left, be it
            reconstructable or not; 0 for noise and for hits that are not selected (N,) int64.
    """

    selected: np.ndarray
    label: np.ndarray
    particle_index: np.ndarray
    particles: np.ndarray
    particle_id: np.ndarray
    num_particle_hits: np.ndarray


def make_targets(event: Event, selection: ParticleSelection) -> Targets:
    """Find the reconstructable particles of an event and their hits.

    A particle's hits are counted over all hits in the selected volumes, so before any filter.
    Particle id 0 is noise and never counts.

    Args:
        event: The event, with truth.
        selection: The cuts.

    Raises:
        DataError: If the event has no truth or no particles, or a particle that is wanted has a
            value beyond float32.
    """
    if not event.has_truth or event.particles is None:
        lacking = "particles" if event.particles is None else "truth"
        raise DataError.of(
            event.name,
            lacking,
            found="none",
            expected="the truth of the hits and the particles",
            remedy=f"targets need {event.name}-{lacking}.csv[.gz]",
        )
    table, particle_id = event.particles, event.particles["particle_id"]
    selected = selection.select(event)
    owner = np.where(selected, event.hits["particle_id"], 0)  # (N,)
    row = find_rows(particle_id, owner)  # (N,), of all particles
    row[owner == 0] = -1
    num_hits = np.bincount(row[row >= 0], minlength=len(particle_id))
    pt = transverse(table["px"], table["py"])
    eta = pseudorapidity(table["px"], table["py"], table["pz"])
    wanted = (pt > selection.min_pt) & (np.abs(eta) < selection.max_eta)
    wanted &= (num_hits >= selection.min_hits) & (particle_id != 0)
    index_of = np.append(np.where(wanted, np.cumsum(wanted) - 1, -1), -1)  # the last for row -1
    particle_index = index_of[row]
    phi = azimuth(table["px"], table["py"])
    columns = np.stack([pt, eta, phi, table["vz"], table["q"], num_hits], axis=1)  # (all, 6)
    with np.errstate(over="ignore"):
        particles = columns[wanted].astype(np.float32)  # (P, 6)
    finite = np.isfinite(particles).all(0)
    if not finite.all():
        raise DataError.of(
            event.name,
            f"particles, {PARTICLE_COLUMNS[int(np.argmin(finite))]}",
            found="values beyond float32",
            expected="finite momenta and vertices",
        )
    return Targets(
        selected,
        particle_index >= 0,
        particle_index,
        particles,
        particle_id[wanted],
        _count_equal(owner),
    )


def _count_equal(owner: np.ndarray) -> np.ndarray:
    """How many hits have the owner of each hit, 0 for those without one (N,)."""
    _, place, counts = np.unique(owner, return_inverse=True, return_counts=True)
    return np.where(owner != 0, counts[place], 0)
