"""How well tracks reconstruct particles."""

# B events, N hits, P particles, M queries, C criteria; over all events: R particles, T tracks

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from hepattn.metrics.efficiency import Efficiency, efficiency
from hepattn.metrics.track_matching import CRITERIA, TrackStatus, match_tracks, track_status
from hepattn.physics.track_fit import FIT_COLUMNS

PARTICLE_STATES = ("particle_event", "particle_columns", "particle_left", "particle_found")
TRACK_STATES = (
    "track_event",
    "track_index",
    "track_counts",
    "track_status",
    "track_fit",
    "track_truth",
)


class ParticleTable(NamedTuple):
    """The particles to find, of all events.

    Attributes:
        event: Number of the event (R,).
        columns: Properties of the particle (R, F).
        num_left: Its hits after the filter (R,).
        found: Whether a track satisfies each of ``CRITERIA`` for it (R, C).
    """

    event: Tensor
    columns: Tensor
    num_left: Tensor
    found: Tensor


class TrackTable(NamedTuple):
    """The tracks of all events.

    Attributes:
        event: Number of the event (T,).
        track: Index of the track in its event (T,).
        num_hits: Its hits (T,).
        precision: Share of its hits that are its particle's (T,).
        recall: Share of its particle's hits that are in it (T,); 0 for a track of noise.
        status: ``TrackStatus`` by each of ``CRITERIA`` (T, C).
        fit: Fitted parameters, columns as ``FIT_COLUMNS`` (T, 5); NaN where there are none.
        truth: Properties of its particle (T, F); NaN where that is no target.
    """

    event: Tensor
    track: Tensor
    num_hits: Tensor
    precision: Tensor
    recall: Tensor
    status: Tensor
    fit: Tensor
    truth: Tensor


@dataclass(frozen=True)
class CriterionFigures:
    """Figures by one criterion, each with its 68.3 % interval.

    The rates are shares of all tracks. Without hits in two tracks, only ``lhc`` can have
    duplicates, since the others ask for more than half of the particle's hits.

    Args:
        efficiency: Share of the particles for which a track satisfies the criterion.
        fake_rate: Tracks that satisfy it for no particle at all.
        duplicate_rate: Tracks that satisfy it for a target which a better track has found.
        outside_rate: Tracks that satisfy it for a particle that is no target.
        strict_fake_rate: Fakes and outsiders: the fake rate where only targets count.
    """

    efficiency: Efficiency
    fake_rate: Efficiency
    duplicate_rate: Efficiency
    outside_rate: Efficiency
    strict_fake_rate: Efficiency


@dataclass(frozen=True)
class TrackingFigures:
    """Figures of the tracks of all events.

    Args:
        double_majority: Precision and recall above 1/2.
        perfect: Precision and recall 1.
        lhc: Precision above 3/4.
        num_particles: Particles to find.
        num_tracks: Tracks found.
    """

    double_majority: CriterionFigures
    perfect: CriterionFigures
    lhc: CriterionFigures
    num_particles: int
    num_tracks: int

    def scalars(self) -> dict[str, float]:
        """Return the central values by name, such as ``double_majority_efficiency``."""
        values: dict[str, float] = {}
        for criterion in CRITERIA:
            for name, value in asdict(getattr(self, criterion)).items():
                values[f"{criterion}_{name}"] = float(value[0])
        counts = {"num_particles": self.num_particles, "num_tracks": self.num_tracks}
        return values | {name: float(count) for name, count in counts.items()}


class TrackingMetrics(Metric):
    """Match the tracks of each batch and answer for all events together.

    Several processes answer for all of their events together inside ``sync_context()``.

    Args:
        min_hits: How many hits a particle must keep to count among those after the filter.

    Raises:
        ValueError: If ``min_hits`` is below 1.
    """

    full_state_update = False

    def __init__(self, min_hits: int = 3) -> None:
        super().__init__()
        if min_hits < 1:
            raise ValueError(f"min_hits={min_hits} must be at least 1")
        self.min_hits = min_hits
        for name in PARTICLE_STATES + TRACK_STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        track: Tensor,
        valid: Tensor,
        particle_id: Tensor,
        num_particle_hits: Tensor,
        particle_index: Tensor,
        particles: Tensor,
        particle_valid: Tensor,
        event: Tensor,
        fit: Tensor | None = None,
    ) -> None:
        """Add a batch of B events.

        Args:
            track: Track of each hit (B, N), -1 for none.
            valid: True for real hits (B, N).
            particle_id: Particle that left each hit, target or not (B, N); 0 for noise.
            num_particle_hits: Hits of that particle before any filter (B, N).
            particle_index: Row in ``particles`` of each hit's particle, -1 for none (B, N).
            particles: Properties of the particles to find (B, P, F).
            particle_valid: True for real particles (B, P).
            event: Number of each event (B).
            fit: Fitted parameters of each track by its index (B, M, 5), columns as
                ``FIT_COLUMNS``; every index of ``track`` is below M.
        """
        matches = match_tracks(track, valid, particle_id, num_particle_hits, particle_index)
        status = torch.stack([track_status(matches, after) for after in (False, True)], 1)
        row, target = matches.row, matches.particle_index  # (T,), (T,)
        found = torch.zeros(*particle_valid.shape, 2, len(CRITERIA), device=track.device)
        is_target = target >= 0
        found.index_put_(
            (row[is_target], target[is_target]),
            (status[is_target] == TrackStatus.FOUND).float(),
            accumulate=True,
        )  # (B, P, 2, C)
        own = valid & (particle_index >= 0)
        left = torch.zeros_like(particle_valid, dtype=torch.int64)
        left.scatter_add_(1, particle_index.clamp(min=0), own.long())  # (B, P)
        truth = particles[row, target].float()  # (T, F), any row where there is no target
        if fit is None:
            fit_of_track = torch.full((len(row), len(FIT_COLUMNS)), torch.nan, device=track.device)
        else:
            fit_of_track = fit[row, matches.track].detach().float()  # (T, 5)
        counts = (matches.num_hits, matches.num_shared, matches.num_particle_hits, matches.num_left)
        new = {
            "particle_event": event.unsqueeze(1).expand_as(particle_valid)[particle_valid],
            "particle_columns": particles[particle_valid].float(),
            "particle_left": left[particle_valid],
            "particle_found": found[particle_valid] > 0,
            "track_event": event[row],
            "track_index": matches.track,
            "track_counts": torch.stack(counts, dim=1),  # (T, 4)
            "track_status": status,  # (T, 2, C)
            "track_fit": fit_of_track,
            "track_truth": truth.masked_fill(~is_target.unsqueeze(1), torch.nan),
        }
        for name, value in new.items():
            getattr(self, name).append(value)

    def particle_table(self, after_filter: bool = False) -> ParticleTable:
        """Return the particles to find.

        Args:
            after_filter: Whether recall is out of the hits after the filter, and only particles
                that keep enough hits are to be found.
        """
        event, columns, num_left, found = (dim_zero_cat(getattr(self, n)) for n in PARTICLE_STATES)
        table = ParticleTable(event, columns, num_left, found[:, int(after_filter)])
        if not after_filter:
            return table
        kept = num_left >= self.min_hits
        return ParticleTable(*(field[kept] for field in table))

    def track_table(self, after_filter: bool = False) -> TrackTable:
        """Return the tracks.

        Args:
            after_filter: Whether recall is out of the hits after the filter.
        """
        states = (dim_zero_cat(getattr(self, name)) for name in TRACK_STATES)
        event, track, counts, status, fit, truth = states
        num_hits, num_shared, before, left = counts.unbind(1)
        total = left if after_filter else before
        return TrackTable(
            event=event,
            track=track,
            num_hits=num_hits,
            precision=num_shared / num_hits,
            recall=num_shared / total.clamp(min=1),
            status=status[:, int(after_filter)],
            fit=fit,
            truth=truth,
        )

    def figures(self, after_filter: bool = False) -> TrackingFigures:
        """Count.

        Args:
            after_filter: Whether to count out of what the filter left: recall out of the hits
                after it, efficiency out of the particles that keep enough hits.
        """
        found = self.particle_table(after_filter).found
        status = self.track_table(after_filter).status
        num_particles, num_tracks = len(found), len(status)
        by_criterion = {}
        for index, name in enumerate(CRITERIA):
            fakes, duplicates, outside = (
                int((status[:, index] == kind).sum())
                for kind in (TrackStatus.FAKE, TrackStatus.DUPLICATE, TrackStatus.OUTSIDE)
            )
            by_criterion[name] = CriterionFigures(
                efficiency=efficiency(int(found[:, index].sum()), num_particles),
                fake_rate=efficiency(fakes, num_tracks),
                duplicate_rate=efficiency(duplicates, num_tracks),
                outside_rate=efficiency(outside, num_tracks),
                strict_fake_rate=efficiency(fakes + outside, num_tracks),
            )
        return TrackingFigures(**by_criterion, num_particles=num_particles, num_tracks=num_tracks)

    compute = figures


def trackml_score(track: Tensor, particle_id: Tensor, weight: Tensor) -> float:
    """Score one event as the TrackML challenge does.

    A track that has more than half of its hits from one particle, and more than half of that
    particle's hits, gains the weights of the hits that they share.

    Args:
        track: Track of each hit of the event (H,), negative for none.
        particle_id: Particle that left each hit (H,), 0 for noise.
        weight: Weight of each hit (H,); divided by their sum.

    Returns:
        The score, in [0, 1].

    Raises:
        ValueError: If the weights do not have a positive sum.
    """
    total = float(weight.double().sum())
    if not total > 0:
        raise ValueError(f"the weights sum to {total}; a score needs a positive sum")
    _, group, size = particle_id.unique(return_inverse=True, return_counts=True)
    _, index = track.unique(return_inverse=True)  # track numbers may be large
    index = index.masked_fill(track < 0, -1)
    matches = match_tracks(
        track=index.unsqueeze(0),
        valid=torch.ones_like(track, dtype=torch.bool).unsqueeze(0),
        particle_id=particle_id.unsqueeze(0),
        num_particle_hits=size[group].unsqueeze(0),
        particle_index=torch.full_like(track, -1).unsqueeze(0),
    )
    good = track_status(matches)[:, CRITERIA.index("double_majority")] != TrackStatus.FAKE
    owner = torch.zeros(len(track) + 1, dtype=torch.int64, device=track.device)  # last for none
    owner[matches.track[good]] = matches.particle_id[good]
    gained = (particle_id != 0) & (owner[index] == particle_id)
    return float(weight[gained].double().sum()) / total
