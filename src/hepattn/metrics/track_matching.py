"""Which particle a track belongs to, and what that makes of the track.

A track is a set of hits, and no hit is in two tracks. It is associated with the particle with
which it shares most hits, the one with the lower id where two share as many. Of its ``precision``
(shared hits / hits of the track) and ``recall`` (shared hits / hits of the particle), the criteria
ask, as in arXiv:2411.07149:

- ``double_majority``: both above 1/2, as the TrackML challenge does;
- ``perfect``: both 1;
- ``lhc``: precision above 3/4.

Since all of them ask for a precision above 1/2, a tie between particles decides nothing.
"""

# B events, N hits, T tracks, C criteria

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

CRITERIA = ("double_majority", "perfect", "lhc")


class TrackStatus(IntEnum):
    """What a track is by one criterion; each track is exactly one of these.

    ``FAKE`` satisfies it for no particle. ``OUTSIDE`` does for a particle that is no target.
    Of the tracks that do for the same target, the one with most shared hits (of several, the one
    with the lowest index) has ``FOUND`` it, and each other one is a ``DUPLICATE``.
    """

    FAKE = 0
    FOUND = 1
    DUPLICATE = 2
    OUTSIDE = 3


class TrackMatches(NamedTuple):
    """The tracks of a batch that have hits, by event and then by index, with their particles.

    Attributes:
        row: Row of the track's event in the batch (T,).
        track: Index of the track in its event (T,).
        num_hits: Hits of the track (T,).
        num_shared: Hits that it shares with its particle (T,).
        particle: Number of its particle among those of the batch (T,), -1 for only noise.
        particle_id: Id of its particle (T,), 0 for only noise.
        particle_index: Row of its particle among the targets of its event (T,), -1 for none.
        num_particle_hits: Hits of its particle before any filter (T,).
        num_left: Hits of its particle in the batch (T,).
    """

    row: Tensor
    track: Tensor
    num_hits: Tensor
    num_shared: Tensor
    particle: Tensor
    particle_id: Tensor
    particle_index: Tensor
    num_particle_hits: Tensor
    num_left: Tensor


def match_tracks(
    track: Tensor,
    valid: Tensor,
    particle_id: Tensor,
    num_particle_hits: Tensor,
    particle_index: Tensor,
) -> TrackMatches:
    """Associate each track with the particle with which it shares most hits.

    Args:
        track: Track of each hit (B, N), -1 for none.
        valid: True for real hits (B, N).
        particle_id: Particle that left each hit (B, N), 0 for noise.
        num_particle_hits: Hits of that particle before any filter (B, N).
        particle_index: Row of that particle among the targets (B, N), -1 for no target.

    Returns:
        T tracks.
    """
    row = torch.arange(len(track), device=track.device).unsqueeze(1).expand_as(track)
    real = valid & (particle_id != 0)
    # Particles get numbers in the order of their events and ids.
    ids, id_rank = particle_id[real].unique(return_inverse=True)
    keys, group, num_left = (row[real] * len(ids) + id_rank).unique(
        return_inverse=True, return_counts=True
    )
    num_groups = len(keys)
    group_of_hit = torch.full_like(track, -1).masked_scatter(real, group)  # (B, N)

    chosen = valid & (track >= 0)
    width = int(track.max().clamp(min=0)) + 1 if track.numel() else 1
    track_keys, owner, num_hits = (row * width + track)[chosen].unique(
        return_inverse=True, return_counts=True
    )
    # The largest value has the most shared hits, and then the lowest number of the particle.
    group = group_of_hit[chosen]
    pairs, num_shared = (owner * num_groups + group)[group >= 0].unique(return_counts=True)
    size = max(num_groups, 1)
    value = num_shared * size + (size - 1 - pairs % size)
    best = torch.full_like(track_keys, -1).scatter_reduce(0, pairs // size, value, "amax")
    none = best < 0
    particle = torch.where(none, -1, size - 1 - best % size)

    def of_particle(values: Tensor, absent: int) -> Tensor:
        """Pick the value of each track's particle from those of the hits (B, N)."""
        table = values.new_full((num_groups + 1,), absent)  # the last for tracks of noise
        table[group_of_hit[real]] = values[real]
        return table[particle]

    return TrackMatches(
        row=track_keys // width,
        track=track_keys % width,
        num_hits=num_hits,
        num_shared=torch.where(none, 0, best // size),
        particle=particle,
        particle_id=of_particle(particle_id, 0),
        particle_index=of_particle(particle_index, -1),
        num_particle_hits=of_particle(num_particle_hits, 0),
        num_left=torch.cat([num_left, num_left.new_zeros(1)])[particle],
    )


def track_status(matches: TrackMatches, after_filter: bool = False) -> Tensor:
    """Judge the tracks by each criterion.

    Args:
        matches: The tracks (T).
        after_filter: Whether the recall is out of the particle's hits in the batch instead of
            those before any filter.

    Returns:
        (T, C) int64, values of ``TrackStatus`` for each of ``CRITERIA``.
    """
    num_hits, shared = matches.num_hits, matches.num_shared
    total = matches.num_left if after_filter else matches.num_particle_hits
    satisfied = torch.stack(
        [
            (2 * shared > num_hits) & (2 * shared > total),
            (shared == num_hits) & (shared == total),
            4 * shared > 3 * num_hits,
        ],
        dim=1,
    )  # (T, C)
    num_tracks = len(shared)
    place = torch.arange(num_tracks, device=shared.device)
    rank = shared * num_tracks + (num_tracks - 1 - place)  # (T,), the largest counts first
    rank = torch.where(satisfied, rank.unsqueeze(1), -1)  # (T, C)
    group = (matches.particle + 1).unsqueeze(1).expand_as(rank)  # (T, C), 0 for noise
    first = rank.new_full((int(group.max()) + 1 if num_tracks else 1, len(CRITERIA)), -1)
    first = first.scatter_reduce(0, group, rank, "amax").gather(0, group)  # (T, C)
    status = torch.where(rank == first, int(TrackStatus.FOUND), int(TrackStatus.DUPLICATE))
    status[matches.particle_index < 0] = int(TrackStatus.OUTSIDE)
    return status.masked_fill(~satisfied, int(TrackStatus.FAKE))
