"""The numbers that figures quote of targets, and what methods without a network say of them."""

# B events, S sensors, d components of a target

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hepattn.data.xec import XecBatch
from hepattn.experiments.xec import baselines
from hepattn.experiments.xec.regressor import Target
from hepattn.experiments.xec.targets import to_angles, to_vector
from hepattn.physics import xec

UNITS = {
    "energy": "%",
    "start": "ps",
    "u": "mm",
    "v": "mm",
    "w": "mm",
    "distance": "mm",
    "theta": "mrad",
    "phi": "mrad",
    "opening angle": "mrad",
}
"""What figures quote each number in."""
NETWORK = "network"
LIGHT_SPEED = 29.979  # cm / ns
REFRACTIVE_INDEX = 1.61  # of xenon, for its own light
CM_TO_MM, NS_TO_PS, RAD_TO_MRAD = 10.0, 1e3, 1e3


class Estimate(NamedTuple):
    """An estimate of one number, its truth and, where it is told, its standard deviation (B)."""

    value: Tensor
    truth: Tensor
    spread: Tensor | None = None


def numbers(
    name: Target, value: Tensor, truth: Tensor, spread: Tensor | None = None
) -> dict[str, Estimate]:
    """The numbers that figures quote of a target, in the units of figures.

    Args:
        name: Which target.
        value: An estimate in the units of `XecBatch` (B, d).
        truth: What is true (B, d).
        spread: Standard deviations of the components (B, d), where they are told.
    """
    spreads = [None] * value.shape[1] if spread is None else list(spread.unbind(1))
    match name:
        case "energy":
            share = 100 / truth[:, 0]  # per cent of the truth
            told = None if spread is None else spreads[0] * share
            return {"energy": Estimate(value[:, 0] * share, truth[:, 0] * share, told)}
        case "start":
            told = None if spread is None else spreads[0] * NS_TO_PS
            return {"start": Estimate(value[:, 0] * NS_TO_PS, truth[:, 0] * NS_TO_PS, told)}
        case "position":
            found = {
                axis: Estimate(
                    value[:, i] * CM_TO_MM,
                    truth[:, i] * CM_TO_MM,
                    None if spread is None else spreads[i] * CM_TO_MM,
                )
                for i, axis in enumerate("uvw")
            }
            apart = (_to_xyz(value) - _to_xyz(truth)).norm(dim=1) * CM_TO_MM
            return found | {"distance": Estimate(apart, torch.zeros_like(apart))}
        case "angles":
            return _directions(value, truth, to_vector(value), to_vector(truth), spreads)
        case _:
            angles = (torch.stack(to_angles(x), 1) for x in (value, truth))
            return _directions(*angles, value, truth, [None, None])


def _directions(
    angles: Tensor,
    true_angles: Tensor,
    vector: Tensor,
    true_vector: Tensor,
    spreads: Sequence[Tensor | None],
) -> dict[str, Estimate]:
    """Numbers of a direction, given its angles (B, 2) and its unit vector (B, 3)."""
    found = {
        name: Estimate(
            angles[:, i] * RAD_TO_MRAD,
            true_angles[:, i] * RAD_TO_MRAD,
            None if spreads[i] is None else spreads[i] * RAD_TO_MRAD,
        )
        for i, name in enumerate(("theta", "phi"))
    }
    # an arccosine would lose small angles
    across = torch.linalg.cross(vector, true_vector).norm(dim=1)
    opening = torch.atan2(across, (vector * true_vector).sum(1)) * RAD_TO_MRAD
    return found | {"opening angle": Estimate(opening, torch.zeros_like(opening))}


class Fitted(NamedTuple):
    """What estimates without a network learn from training events.

    Attributes:
        energy: From `baselines.fit_linear_energy`, in MeV a photon (2).
        light: Offset and slope of the energy in MeV with the light of a point (2).
        position: Offset and slope of u, v and w (3, 2).
        start: Offset and slope of the start (2).
    """

    energy: Tensor
    light: Tensor
    position: Tensor
    start: Tensor


def fit_classical(batch: XecBatch) -> Fitted:
    """Fit what `classical` needs.

    Args:
        batch: Training events.
    """
    position, light = _centroid_and_depth(batch)
    axes = zip(position.unbind(1), batch.position.unbind(1), strict=True)
    lines = torch.stack([baselines.fit_line(*axis) for axis in axes])  # (3, 2)
    source = _to_xyz(_along(lines, position))
    return Fitted(
        baselines.fit_linear_energy(batch.photons, batch.valid, batch.energy),
        baselines.fit_line(light, batch.energy),
        lines,
        baselines.fit_line(_start_by_flight(batch, source), batch.start),
    )


def classical(batch: XecBatch, fitted: Fitted) -> dict[str, dict[Target, Tensor]]:
    """Estimates without a network, by the name of the method, in the units of `XecBatch` (B, d).

    Args:
        batch: The events.
        fitted: What training events taught.
    """
    energy = baselines.linear_energy(batch.photons, batch.valid, fitted.energy)
    position, light = _centroid_and_depth(batch)
    position = _along(fitted.position, position)
    from_light = _along(fitted.light.unsqueeze(0), light.unsqueeze(1))
    source, true_source = _to_xyz(position), _to_xyz(batch.position)
    start = _along(fitted.start.unsqueeze(0), _start_by_flight(batch, source).unsqueeze(1))
    return {
        "sum of photons": {"energy": energy.unsqueeze(1)},
        "light of a point": {"energy": from_light},
        "times of flight": {"start": start},
        "centroid, depth by least squares": {
            "position": position,
            **_flight(source),
        },
        "true first interaction": _flight(true_source),
    }


def _flight(source: Tensor) -> dict[Target, Tensor]:
    """Direction of a photon from the middle of the target to a place in cm (B, 3)."""
    direction = source / source.norm(dim=1, keepdim=True)
    return {"direction": direction, "angles": torch.stack(to_angles(direction), 1)}


def _centroid_and_depth(batch: XecBatch) -> tuple[Tensor, Tensor]:
    """The middle of the light along u, v and w in cm (B, 3), and how much light there is (B)."""
    uv = baselines.centroid(batch.photons, batch.valid)
    depth, light = baselines.least_squares_depth(batch.photons, batch.valid, uv)
    return torch.cat([uv, depth.unsqueeze(1)], 1), light


def _along(lines: Tensor, values: Tensor) -> Tensor:
    """Take each component of values (B, d) along its line (d, 2)."""
    return lines[:, 0] + lines[:, 1] * values


def _start_by_flight(batch: XecBatch, source: Tensor) -> Tensor:
    """Mean time of bright sensors less what light and photon take to them, in ns (B).

    Args:
        batch: The events.
        source: Where the photon interacted, (x, y, z) in cm (B, 3).
    """
    position = torch.from_numpy(xec.sensors().position.copy()).to(source)
    light = torch.cdist(source, position) * REFRACTIVE_INDEX / LIGHT_SPEED  # (B, S)
    weight = torch.where(batch.time_valid, batch.photons, 0.0)
    early = torch.where(batch.time_valid, batch.time - light, 0.0)
    mean = (weight * early).sum(1) / weight.sum(1).clamp(min=1e-6)
    return mean - source.norm(dim=1) / LIGHT_SPEED


def _to_xyz(position: Tensor) -> Tensor:
    """(u, v, w) to (x, y, z), both in cm (B, 3)."""
    xyz = xec.uvw_to_xyz(position.detach().cpu().double().numpy())
    return torch.from_numpy(xyz).to(position)
