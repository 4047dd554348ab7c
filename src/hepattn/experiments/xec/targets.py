"""What the network tells of a photon, scaled, and what that is in the detector's units."""

# B events, S sensors, d components of a target

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hepattn.data.xec import XecBatch
from hepattn.experiments.xec import baselines
from hepattn.experiments.xec.regressor import Target
from hepattn.physics import xec

SCALES: dict[Target, tuple[float, ...]] = {
    "energy": (0.1,),  # of what the light says
    "start": (1.0,),  # ns
    "position": (1.0, 1.0, 5.0),  # cm
    "direction": (1.0, 1.0, 1.0),
    "angles": (1.0, 1.0),  # polar angle and azimuth in radians
}
"""What each component of a target is divided by, once it counts from its reference."""
PHOTONS_PER_MEV = 15_000.0


class Reference(NamedTuple):
    """What the visible sensors say at once; the network tells how far off that is.

    Attributes:
        time: Photon-weighted mean of the times, in ns (B).
        place: Centroid of the light around the brightest sensor of the inner face, u and v
            in cm (B, 2).
        energy: All photons, scaled up for sensors that are not known, in MeV (B).
    """

    time: Tensor
    place: Tensor
    energy: Tensor

    @classmethod
    def of(cls, photons: Tensor, valid: Tensor, time: Tensor) -> "Reference":
        """Read it off.

        Args:
            photons: Photons (B, S).
            valid: Where they are known (B, S).
            time: Mean of the times, from the scaling of the encoder (B).
        """
        rate = photons.new_full((2,), 1 / PHOTONS_PER_MEV)
        energy = baselines.linear_energy(photons, valid, rate).clamp(min=1e-3)
        return cls(time, baselines.centroid(photons, valid), energy)


def physical(name: Target, scaled: Tensor, reference: Reference) -> Tensor:
    """A target in the units of `XecBatch` (B, d).

    Args:
        name: Which target.
        scaled: Its components as the network tells them (B, d).
        reference: What they count from.
    """
    value = scaled * scaled.new_tensor(SCALES[name])
    match name:
        case "energy":
            return reference.energy.unsqueeze(1) * (1 + value)
        case "start":
            return reference.time.unsqueeze(1) + value
        case "position":
            return value + _pad(reference.place)
        case "direction":
            return unit(value)
        case _:
            return value


def unit(vector: Tensor) -> Tensor:
    """Give vectors (B, 3) the length one."""
    return vector / vector.norm(dim=1, keepdim=True).clamp(min=1e-6)


def physical_spread(name: Target, scaled: Tensor, reference: Reference) -> Tensor:
    """Standard deviations of a target in the units of `XecBatch`, of scaled ones (B, d)."""
    spread = scaled * scaled.new_tensor(SCALES[name])
    return spread * reference.energy.unsqueeze(1) if name == "energy" else spread


def _pad(place: Tensor) -> Tensor:
    """U and v (B, 2) as a position whose depth counts from the inner face (B, 3)."""
    return nn.functional.pad(place, (0, 1))


def true_target(name: Target, batch: XecBatch) -> Tensor:
    """What is true of a target, in the same units (B, d)."""
    if name == "angles":
        return torch.stack(to_angles(batch.direction), 1)
    truth = getattr(batch, name)
    return truth.view(len(truth), -1)


def scaled_target(name: Target, batch: XecBatch, reference: Reference) -> Tensor:
    """What the network should tell (B, d), the inverse of `physical`."""
    truth = true_target(name, batch)
    match name:
        case "energy":
            truth = truth / reference.energy.unsqueeze(1) - 1
        case "start":
            truth = truth - reference.time.unsqueeze(1)
        case "position":
            truth = truth - _pad(reference.place)
    return truth / truth.new_tensor(SCALES[name])


def to_angles(direction: Tensor) -> tuple[Tensor, Tensor]:
    """Polar angle and azimuth in radians of unit vectors (B, 3), both (B)."""
    angles = xec.vector_to_angles(direction.detach().cpu().double().numpy())
    theta, phi = (torch.from_numpy(np.array(angle)).to(direction) for angle in angles)
    return theta, phi


def to_vector(angles: Tensor) -> Tensor:
    """Unit vectors (B, 3) of polar angles and azimuths in radians (B, 2)."""
    vector = xec.angles_to_vector(*angles.detach().cpu().double().numpy().T)
    return torch.from_numpy(np.array(vector)).to(angles)
