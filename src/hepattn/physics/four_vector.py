"""Four-vectors and the quantities that colliders measure.

A four-vector is (E, px, py, pz) in GeV, in the last dimension. Directions are the azimuth phi in
(-pi, pi], the pseudorapidity eta and the rapidity y. Everything is finite, and so are its
gradients, also for a vector of zeros (padding) and for massless particles along the beam: where
pt or the mass is zero, its gradient is zero, too.
"""

# ...: any leading dimensions

import math

import torch
from torch import Tensor

FLOOR = 1e-8  # smallest value whose logarithm or ratio is taken, as published for ParT


def transverse_momentum(vectors: Tensor) -> Tensor:
    """Momentum across the beam in GeV.

    Args:
        vectors: Four-vectors (..., 4).

    Returns:
        (...)
    """
    px, py = vectors[..., 1], vectors[..., 2]
    along_beam = (px == 0) & (py == 0)  # no gradient there
    return torch.hypot(px.masked_fill(along_beam, 1.0), py).masked_fill(along_beam, 0.0)


def azimuth(vectors: Tensor) -> Tensor:
    """Angle phi around the beam in (-pi, pi], of four-vectors (..., 4) to (...)."""
    return torch.atan2(vectors[..., 2], vectors[..., 1])


def rapidity(vectors: Tensor) -> Tensor:
    """Rapidity ln((E + pz) / (E - pz)) / 2.

    The floor is inside the logarithm: ln(1 + 2 pz / max(E - pz, floor)) / 2.

    Args:
        vectors: Four-vectors (..., 4).

    Returns:
        (...); zero for a vector of zeros.
    """
    energy, pz = vectors[..., 0], vectors[..., 3]
    return 0.5 * torch.log((1 + 2 * pz / (energy - pz).clamp(min=FLOOR)).clamp(min=FLOOR))


def pseudorapidity(vectors: Tensor) -> Tensor:
    """Pseudorapidity asinh(pz / pt), of four-vectors (..., 4) to (...)."""
    return torch.asinh(vectors[..., 3] / transverse_momentum(vectors).clamp(min=FLOOR))


def mass(vectors: Tensor) -> Tensor:
    """Mass in GeV, zero where rounding makes its square negative; (..., 4) to (...)."""
    squared = mass_squared(vectors)
    massless = squared <= 0
    return squared.masked_fill(massless, 1.0).sqrt().masked_fill(massless, 0.0)


def mass_squared(vectors: Tensor) -> Tensor:
    """E^2 - p^2 in GeV^2, of four-vectors (..., 4) to (...).

    It is computed as (E - pz)(E + pz) - pt^2, which loses less to rounding.
    """
    energy, px, py, pz = vectors.unbind(-1)
    return (energy - pz) * (energy + pz) - px * px - py * py


def delta_phi(a: Tensor, b: Tensor) -> Tensor:
    """Difference a - b of two azimuths in radians, wrapped into [-pi, pi)."""
    return (a - b + math.pi) % (2 * math.pi) - math.pi


def from_pt_eta_phi_energy(pt: Tensor, eta: Tensor, phi: Tensor, energy: Tensor) -> Tensor:
    """Make four-vectors (..., 4) of pt and energy in GeV, eta and phi, each (...)."""
    return torch.stack([energy, pt * phi.cos(), pt * phi.sin(), pt * eta.sinh()], -1)


def boost_along_z(vectors: Tensor, rapidity_shift: float | Tensor) -> Tensor:
    """Boost four-vectors (..., 4) along the beam, so that rapidities grow by the shift."""
    shift = torch.as_tensor(rapidity_shift, dtype=vectors.dtype, device=vectors.device)
    cosh, sinh = shift.cosh(), shift.sinh()
    energy, px, py, pz = vectors.unbind(-1)
    return torch.stack([energy * cosh + pz * sinh, px, py, energy * sinh + pz * cosh], -1)


def rotate_about_z(vectors: Tensor, angle: float | Tensor) -> Tensor:
    """Rotate four-vectors (..., 4) about the beam by an angle in radians."""
    angle = torch.as_tensor(angle, dtype=vectors.dtype, device=vectors.device)
    energy, px, py, pz = vectors.unbind(-1)
    return torch.stack(
        [energy, px * angle.cos() - py * angle.sin(), px * angle.sin() + py * angle.cos(), pz], -1
    )
