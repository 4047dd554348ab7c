"""Helices through the hits of tracks from the beam line (torch)."""

# H hits, T tracks

import torch
from torch import Tensor

from hepattn.physics.helix import CURVATURE_CONSTANT

FIT_COLUMNS = ("pt", "eta", "phi", "z0", "charge")
"""Columns of ``fit_helices``: GeV, -, radians, mm, elementary charges."""

MIN_HITS = 3
DEGENERATE = 1e-12
"""A normal matrix whose determinant is this small against its diagonal has no inverse."""


def fit_helices(position: Tensor, track: Tensor, num_tracks: int, field: float = 2.0) -> Tensor:
    """Fit a helix that starts on the beam line x = y = 0 to the hits of each track.

    In the transverse plane, a circle through the beam line with azimuth phi and curvature h there
    has h r^2 / 2 = y cos(phi) - x sin(phi). In axes x', y' along and across the mean of the hits,
    where the azimuth is phi', this is linear,
    y' = tan(phi') x' + h / (2 cos(phi')) r^2,
    with the error of the hits on y' alone, so least squares have no bias towards small radii.
    Along the beam, z is a straight line in the arc length. Exact for hits in the first half turn
    of a particle that comes from the beam line.

    Args:
        position: x, y, z of the hits in mm (H, 3).
        track: Track of each hit (H,), 0 to ``num_tracks`` - 1.
        num_tracks: T.
        field: Field along z in tesla.

    Returns:
        (T, 5) float64, columns as ``FIT_COLUMNS``: pt, eta and phi on the beam line, z there, and
        the charge. NaN for tracks that have fewer than three hits or do not decide a helix, such
        as hits at only one radius.
    """
    x, y, z = position.double().unbind(1)
    one = torch.ones_like(x)

    def sums(*terms: Tensor) -> list[Tensor]:
        """Add each of the terms (H,) up for each track (T,)."""
        total = x.new_zeros(num_tracks, len(terms))
        return list(total.index_add_(0, track, torch.stack(terms, dim=1)).unbind(1))

    num_hits, sum_x, sum_y = sums(one, x, y)
    axis = torch.atan2(sum_y, sum_x)  # (T,)
    cos, sin = axis.cos()[track], axis.sin()[track]  # (H,)
    along, across = x * cos + y * sin, y * cos - x * sin
    r2 = x**2 + y**2
    tangent, bend = _solve(*sums(along**2, along * r2, r2**2), *sums(along * across, across * r2))
    curvature = 2 * bend / (1 + tangent**2).sqrt()  # h in 1/mm, cos(phi') > 0
    azimuth = axis + tangent.atan()
    half_turn = (curvature[track] * r2.sqrt() / 2).clamp(-1, 1)  # sine of half the angle turned
    arc = r2.sqrt() * torch.where(half_turn == 0, one, half_turn.asin() / half_turn)
    z0, slope = _solve(num_hits, *sums(arc, arc**2), *sums(z, z * arc))
    fitted = torch.stack(
        [
            abs(field) * CURVATURE_CONSTANT / curvature.abs(),
            slope.asinh(),
            torch.atan2(azimuth.sin(), azimuth.cos()),
            z0,
            -torch.sign(curvature * field),
        ],
        dim=1,
    )  # (T, 5)
    undecided = fitted.isnan().any(1) | (num_hits < MIN_HITS)
    return fitted.masked_fill(undecided.unsqueeze(1), torch.nan)


def _solve(a: Tensor, b: Tensor, c: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Solve [[a, b], [b, c]] [p, q] = [u, v]; NaN where the matrix has no inverse. All (T,)."""
    determinant = a * c - b**2
    determinant = torch.where(determinant > DEGENERATE * a * c, determinant, torch.nan)
    return (c * u - b * v) / determinant, (a * v - b * u) / determinant
