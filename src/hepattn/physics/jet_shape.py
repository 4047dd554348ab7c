"""Particles of jets relative to their jet, as JetNet has them, there and back."""

# ...: any leading dimensions, N particles

from typing import NamedTuple

import torch
from torch import Tensor

from hepattn.physics.four_vector import (
    azimuth,
    delta_phi,
    mass,
    pseudorapidity,
    transverse_momentum,
)


class RelativeParticles(NamedTuple):
    """Particles seen from the sum of the particles of their jet.

    Attributes:
        eta: Pseudorapidity relative to the jet (..., N); zero at padded slots.
        phi: Azimuth relative to the jet in radians (..., N).
        pt: Transverse momentum as a share of the jet's (..., N).
        jet: Four-vector of the jet in GeV (..., 4).
    """

    eta: Tensor
    phi: Tensor
    pt: Tensor
    jet: Tensor

    def columns(self) -> Tensor:
        """The columns etarel, phirel and ptrel as JetNet orders them (..., N, 3)."""
        return torch.stack([self.eta, self.phi, self.pt], -1)


def relative_particles(vectors: Tensor, valid: Tensor) -> RelativeParticles:
    """Measure particles relative to the sum of the particles of their jet.

    Args:
        vectors: Four-vectors in GeV (..., N, 4).
        valid: True for real particles (..., N).
    """
    vectors = vectors.masked_fill(~valid.unsqueeze(-1), 0.0)
    jet = vectors.sum(-2)  # (..., 4)
    seen = jet.unsqueeze(-2)
    eta = (pseudorapidity(vectors) - pseudorapidity(seen)).masked_fill(~valid, 0.0)
    phi = delta_phi(azimuth(_off_axis(vectors)), azimuth(_off_axis(seen))).masked_fill(~valid, 0.0)
    pt = transverse_momentum(vectors) / transverse_momentum(seen).clamp(min=1e-8)
    return RelativeParticles(eta, phi, pt, jet)


def relative_mass(vectors: Tensor, valid: Tensor) -> Tensor:
    """Mass of jets as a share of their transverse momentum.

    Args:
        vectors: Four-vectors in GeV (..., N, 4).
        valid: True for real particles (..., N).

    Returns:
        (...); zero for a jet without particles.
    """
    jet = vectors.masked_fill(~valid.unsqueeze(-1), 0.0).sum(-2)
    return mass(jet) / transverse_momentum(jet).clamp(min=1e-8)


def from_relative(
    eta: Tensor, phi: Tensor, pt: Tensor, jet_pt: Tensor, jet_eta: Tensor, jet_phi: Tensor
) -> Tensor:
    """Make massless four-vectors of particles that are known relative to a jet.

    Args:
        eta: Relative pseudorapidity (..., N).
        phi: Relative azimuth in radians (..., N).
        pt: Share of the transverse momentum (..., N); zero at padded slots.
        jet_pt: Transverse momentum of the jet in GeV (...).
        jet_eta: Its pseudorapidity (...).
        jet_phi: Its azimuth in radians (...).

    Returns:
        Four-vectors in GeV (..., N, 4).
    """
    pt = pt * jet_pt.unsqueeze(-1)
    eta, phi = eta + jet_eta.unsqueeze(-1), phi + jet_phi.unsqueeze(-1)
    return torch.stack([pt * eta.cosh(), pt * phi.cos(), pt * phi.sin(), pt * eta.sinh()], -1)


def _off_axis(vectors: Tensor) -> Tensor:
    """Move vectors without transverse momentum to azimuth 0, where gradients are finite."""
    energy, px, py, pz = vectors.unbind(-1)
    px = torch.where((px == 0) & (py == 0), torch.ones_like(px), px)
    return torch.stack([energy, px, py, pz], -1)
