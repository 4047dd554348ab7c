"""From the answers of queries to tracks, and what the queries should have answered."""

# B events, M queries, N hits, P particles

import torch
from torch import Tensor

from hepattn.data.trackml import PARTICLE_COLUMNS
from hepattn.nn.mask_head import Detections

PARAMETER_NAMES = ("log_pt", "eta", "cos_phi", "sin_phi", "z0")
"""What a query estimates of its particle; pT in GeV, z0 in units of 50 mm."""

Z0_SCALE = 50.0  # mm, the spread of collisions along the beam


def form_tracks(
    answer: Detections,
    query_valid: Tensor,
    valid: Tensor,
    object_threshold: float = 0.5,
    mask_threshold: float = 0.5,
    min_hits: int = 3,
) -> Tensor:
    """Give each hit to one track at most.

    A query is a track if its object score reaches the threshold. Of the tracks whose mask holds a
    hit, the hit belongs to the one with the highest product of object and mask score. Tracks with
    too few hits are dropped; their hits stay free.

    Args:
        answer: Answers of the queries.
        query_valid: True for real queries (B, M).
        valid: True for real hits (B, N).
        object_threshold: Smallest object score of a track.
        mask_threshold: Smallest mask score of a hit of a track.
        min_hits: Fewest hits of a track.

    Returns:
        The query of each hit's track (B, N), -1 for none.
    """
    found = answer.object_logit.float().sigmoid()  # (B, M)
    is_track = query_valid & (found >= object_threshold)
    mask = answer.mask_logit.float().sigmoid()  # (B, M, N)
    held = (mask >= mask_threshold) & is_track.unsqueeze(2) & valid.unsqueeze(1)
    score, track = (mask * found.unsqueeze(2)).masked_fill(~held, 0.0).max(1)  # (B, N)
    track = track.masked_fill(score == 0, -1)
    num_hits = torch.zeros_like(query_valid, dtype=torch.int64)
    num_hits.scatter_add_(1, track.clamp(min=0), (track >= 0).long())  # (B, M)
    short = (num_hits < min_hits).gather(1, track.clamp(min=0))
    return track.masked_fill(short, -1)


def first_hits(particle_index: Tensor, r: Tensor, num_particles: int) -> Tensor:
    """Find the hit of each particle that is nearest to the beam line.

    Args:
        particle_index: Particle of each hit (B, N), -1 for none.
        r: Distance of each hit from the beam line (B, N).
        num_particles: Number of particles P.

    Returns:
        True for first hits (B, N).
    """
    index = particle_index.clamp(min=0)
    distance = r.masked_fill(particle_index < 0, torch.inf)
    smallest = r.new_full((len(r), num_particles), torch.inf)
    smallest = smallest.scatter_reduce(1, index, distance, "amin")  # (B, P)
    return (particle_index >= 0) & (distance == smallest.gather(1, index))


def particle_parameters(particles: Tensor) -> Tensor:
    """Turn particles (B, P, 6) into what queries estimate, (B, P, 5)."""
    pt, eta, phi, vz = (
        particles[..., PARTICLE_COLUMNS.index(name)] for name in ("pt", "eta", "phi", "vz")
    )
    log_pt = pt.clamp(min=1e-3).log()  # padding holds zeros
    return torch.stack([log_pt, eta, phi.cos(), phi.sin(), vz / Z0_SCALE], -1)


def track_estimates(parameters: Tensor) -> Tensor:
    """Turn what queries estimate (B, M, 5) into the columns of a track fit, (B, M, 5).

    Returns:
        pt in GeV, eta, phi in rad, z0 in mm, and NaN for the charge, which is not estimated.
    """
    log_pt, eta, cos_phi, sin_phi, z0 = parameters.unbind(-1)
    phi = torch.atan2(sin_phi, cos_phi)
    unknown = torch.full_like(eta, torch.nan)
    return torch.stack([log_pt.exp(), eta, phi, z0 * Z0_SCALE, unknown], -1)
