"""Classical estimates from the light of an event, which networks have to beat.

Numbers of photons are raw, ``known`` says which can be used; what the others hold does not matter.
Lengths are in cm.
"""

# B events, S sensors, D depths, C cells of a window

from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

from hepattn.physics import xec

NEIGHBOUR_RADIUS = 20.0
"""Distance in cm up to which sensors of the same face stand in for each other."""
MIN_PHOTONS = 50.0
"""Photons of the neighbours up to which solid angles say less than a plain mean."""
WINDOW_RADIUS = 15.0
"""Distance in cm of the inner sensors that the depth is fitted to."""
DEPTHS = np.geomspace(0.5, 42.0, 32)
"""Depths in cm that are tried."""
VARIANCE_FLOOR = 100.0
"""Photons added to the variance of each sensor in the fit."""
CHUNK = 16
"""Events fitted at a time, which bounds the memory."""


def centroid(photons: Tensor, known: Tensor, size: int = 7) -> Tensor:
    """Estimate the position along the inner face from the light around the brightest sensor.

    Args:
        photons: Photons (B, S).
        known: Which of them can be used (B, S).
        size: Width of the window in sensors, odd.

    Returns:
        u and v in cm (B, 2): the mean of the known inner sensors in the window, weighted by their
        photons; the window ends at the edge of the face. Without any light, a sensor's position.
    """
    num_phi, num_z = xec.grid("inner").shape
    seen = _seen(photons, known)[:, : xec.NUM_SIPMS]  # (B, 4092)
    brightest = torch.where(known[:, : xec.NUM_SIPMS], seen, -torch.inf).argmax(1)  # (B,)
    step = torch.arange(size, device=photons.device) - size // 2
    phi = (brightest // num_z)[:, None, None] + step[:, None]  # (B, size, 1)
    z = (brightest % num_z)[:, None, None] + step  # (B, 1, size)
    inside = (phi >= 0) & (phi < num_phi) & (z >= 0) & (z < num_z)
    cell = phi.clamp(0, num_phi - 1) * num_z + z.clamp(0, num_z - 1)
    weight = seen.gather(1, cell.flatten(1)) * inside.flatten(1)  # (B, C)
    uv = torch.from_numpy(_inner_uv()).to(seen)
    away = uv[cell.flatten(1)] - uv[brightest].unsqueeze(1)  # (B, C, 2)
    total = weight.sum(1, keepdim=True)
    return uv[brightest] + (weight.unsqueeze(-1) * away).sum(1) / total.where(total > 0, 1)


def least_squares_depth(photons: Tensor, known: Tensor, uv: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate depth and light of a point by fitting solid angles to the photons.

    The expected photons are the light times the sensor's part of the sphere, with Poisson weights.
    The depth is the one that fits the inner sensors close to (u, v) best, between the depths tried
    by a parabola; the light is that of the point at the depth that fits all sensors best. The
    point is the middle of a shower, deeper than the first interaction: ``fit_line`` corrects it.

    Args:
        photons: Photons (B, S).
        known: Which of them can be used (B, S).
        uv: Where the point is along the inner face in cm (B, 2), such as the ``centroid``.

    Returns:
        The depth w in cm (B,) and the photons that were emitted (B,).
    """
    parts = [
        _fit_chunk(*chunk)
        for chunk in zip(photons.split(CHUNK), known.split(CHUNK), uv.split(CHUNK), strict=True)
    ]
    depth, light = (torch.cat(part) for part in zip(*parts, strict=True))
    return depth.to(photons.dtype), light.to(photons.dtype)


def _fit_chunk(photons: Tensor, known: Tensor, uv: Tensor) -> tuple[Tensor, Tensor]:
    depths = torch.from_numpy(DEPTHS).to(photons.device)
    points = torch.cat(
        [
            uv.double().unsqueeze(1).expand(-1, len(depths), 2),
            depths.expand(len(uv), -1).unsqueeze(-1),
        ],
        dim=-1,
    )  # (B, D, 3)
    part = _solid_angles(xec.uvw_to_xyz(points.cpu().numpy()), photons) / (4 * torch.pi)
    foot = xec.uvw_to_xyz(np.pad(uv.double().cpu().numpy(), ((0, 0), (0, 1))))[:, None]
    position = xec.sensors().position
    close = np.linalg.norm(position - foot, axis=-1) < WINDOW_RADIUS  # (B, S)
    close &= ~xec.sensors().is_pmt
    near = known & torch.from_numpy(close).to(known.device)
    near_misfit, _ = _fit_light(photons, near, part)
    misfit, light = _fit_light(photons, known, part)
    place = _lowest(near_misfit)
    spacing = float(np.log(DEPTHS[1] / DEPTHS[0]))
    depth = DEPTHS[0] * torch.exp(place * spacing)
    return depth, _at(light, _lowest(misfit))


def _fit_light(photons: Tensor, known: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
    """Give the misfit and the best light for each depth (B, D)."""
    seen = _seen(photons, known).double()
    weight = known / (seen + VARIANCE_FLOOR)  # (B, S)
    mixed = torch.einsum("bds,bs->bd", part, weight * seen)
    square = torch.einsum("bds,bs->bd", part**2, weight).clamp(min=1e-30)
    return (weight * seen**2).sum(1, keepdim=True) - mixed**2 / square, mixed / square


def _lowest(misfit: Tensor) -> Tensor:
    """Give where the misfit is lowest, as a place between the depths (B,)."""
    best = misfit.argmin(1, keepdim=True).clamp(1, misfit.shape[1] - 2)
    below, at, above = (misfit.gather(1, best + step).squeeze(1) for step in (-1, 0, 1))
    curvature = below - 2 * at + above
    shift = 0.5 * (below - above) / curvature.where(curvature > 0, 1)
    return best.squeeze(1) + torch.where(curvature > 0, shift, 0).clamp(-1, 1)


def _at(values: Tensor, place: Tensor) -> Tensor:
    """Interpolate linearly between columns."""
    left = place.long().clamp(0, values.shape[1] - 2)
    low, high = (values.gather(1, (left + step).unsqueeze(1)).squeeze(1) for step in (0, 1))
    return low + (high - low) * (place - left)


def neighbour_mean(photons: Tensor, known: Tensor) -> Tensor:
    """Estimate each sensor from those around it.

    Args:
        photons: Photons (B, S).
        known: Which of them can be used (B, S).

    Returns:
        The mean of the other known sensors of the same face within 20 cm (B, S). Where there is
        none, the mean of all known sensors of the face; 0 if the face has none.
    """
    total, count = _neighbour_sums(_seen(photons, known), known.to(photons.dtype))
    face = torch.tensor(xec.sensors().face, device=photons.device)
    member = torch.nn.functional.one_hot(face).to(photons.dtype)  # (S, 6)
    face_total = (_seen(photons, known) @ member)[:, face]  # (B, S)
    face_count = (known.to(photons.dtype) @ member)[:, face]
    of_face = face_total / face_count.clamp(min=1)
    return torch.where(count > 0.5, total / count.clamp(min=1), of_face)


def solid_angle_estimate(photons: Tensor, known: Tensor, source_xyz: Tensor) -> Tensor:
    """Estimate each sensor from those around it and from where the light comes from.

    Args:
        photons: Photons (B, S).
        known: Which of them can be used (B, S).
        source_xyz: Where the light comes from: x, y, z in cm (B, 3). The middle of the shower, as
            ``least_squares_depth`` finds it, serves better than the first interaction.

    Returns:
        The photons of the other known sensors of the face within 20 cm, times the sensor's solid
        angle over theirs (B, S); ``neighbour_mean`` where they have no more than 50 photons.
    """
    angle = _solid_angles(source_xyz.cpu().numpy(), photons).to(photons.dtype)  # (B, S)
    total, around = _neighbour_sums(_seen(photons, known), angle * known)
    usable = (total > MIN_PHOTONS) & (around > 0)
    estimate = total * angle / around.where(usable, 1)
    return torch.where(usable, estimate, neighbour_mean(photons, known))


def linear_energy(photons: Tensor, known: Tensor, scale: Tensor) -> Tensor:
    """Estimate the energy from sums of photons.

    Args:
        photons: Photons (B, S).
        known: Which of them can be used (B, S).
        scale: Energy for each photon of SiPMs and of PMTs (2,), from ``fit_linear_energy``.

    Returns:
        In the unit of the scale (B,).
    """
    return _light_sums(photons, known) @ scale


def fit_linear_energy(photons: Tensor, known: Tensor, energy: Tensor) -> Tensor:
    """Fit the scales of ``linear_energy``, for the smallest mean square of the relative error.

    Args:
        photons: Photons of training events (B, S).
        known: Which of them can be used (B, S).
        energy: True energies (B,).

    Returns:
        Energy for each photon of SiPMs and of PMTs (2,).
    """
    relative = _light_sums(photons, known).double() / energy.double().unsqueeze(1)  # (B, 2)
    target = torch.ones_like(relative[:, 0])
    return torch.linalg.lstsq(relative, target).solution.to(photons.dtype)


def fit_line(estimate: Tensor, truth: Tensor) -> Tensor:
    """Fit the line that takes an estimate to the truth, which removes a bias.

    Args:
        estimate: Of training events (B,).
        truth: Of the same (B,).

    Returns:
        Offset and slope (2,): the better estimate is ``offset + slope * estimate``.
    """
    x, y = estimate.double(), truth.double()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    return torch.stack([y.mean() - slope * x.mean(), slope]).to(estimate.dtype)


def _seen(photons: Tensor, known: Tensor) -> Tensor:
    return torch.where(known, photons, 0)


def _light_sums(photons: Tensor, known: Tensor) -> Tensor:
    """Photons of SiPMs and of PMTs, scaled up for those that are not known (B, 2)."""
    seen, sipms = _seen(photons, known), xec.NUM_SIPMS
    sums = [
        part.sum(1) * (part.shape[1] / use.sum(1).clamp(min=1))
        for part, use in ((seen[:, :sipms], known[:, :sipms]), (seen[:, sipms:], known[:, sipms:]))
    ]
    return torch.stack(sums, dim=1)


def _solid_angles(point: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(xec.solid_angles(point.astype(np.float32))).to(like.device).double()


def _neighbour_sums(*values: Tensor) -> list[Tensor]:
    """Sum values over the neighbours of each sensor (B, S)."""
    matrix = _neighbours(values[0].device, values[0].dtype)
    stacked = torch.cat(values).T.contiguous()  # (S, 2 B)
    return list((matrix @ stacked).T.chunk(len(values)))


@lru_cache(maxsize=4)
def _neighbours(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Which sensors are neighbours, as a sparse matrix (S, S)."""
    source, target = xec.neighbours_within(NEIGHBOUR_RADIUS)
    matrix = torch.sparse_coo_tensor(
        torch.tensor(np.stack([target, source])),
        torch.ones(len(source), dtype=dtype),
        (xec.NUM_SENSORS, xec.NUM_SENSORS),
        check_invariants=False,
    )
    return matrix.coalesce().to(device)


@cache
def _inner_uv() -> np.ndarray:
    return np.ascontiguousarray(xec.xyz_to_uvw(xec.sensors().position[: xec.NUM_SIPMS])[:, :2])
