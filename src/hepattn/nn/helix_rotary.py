"""A rotary encoding in which the hits of one track stand at one place."""

# B events, H heads, N tokens, E head features, P pairs of features

import math

import torch
from torch import Tensor, nn

from hepattn.nn.positional import Coordinate
from hepattn.nn.rotary import Rotation
from hepattn.physics.helix import CURVATURE_CONSTANT


class HelixRotary(nn.Module):
    """Turn queries and keys by the azimuth at which a track through the hit left the beam line.

    In a solenoid a particle from the beam line is at φ(r) = φ₀ + asin(κr), κ = 1/(2R), on a circle
    of radius R, and at an η that hardly changes. Head h assumes a curvature κ_h of its own: it
    turns its features by m(φ - asin(κ_h r)) with whole numbers m, and by ωη. So to a head the hits
    of a track of its curvature are neighbours at any radius, and all others are not: attention
    collects the votes of a Hough transform. The κ_h begin evenly spread over both charges
    (a single one at zero), and they and the ω are learned. Scores depend on differences of φ only,
    cyclically.

    Use with `AttentionOptions.position_init`, so that training begins with attention along tracks.

    Args:
        head_dim: Features E of a head.
        num_heads: Number of key heads, each with its curvature.
        min_pt: Transverse momentum of the largest initial curvature, in GeV.
        field: Magnetic field along z in tesla.
        max_phi: Highest m; hits apart by π / max_phi or more look different.
        max_eta: Highest initial ω, per unit of η.
        eta_share: Share of the pairs that η turns.

    Raises:
        ValueError: If a head cannot hold a pair for φ and one for η, or a number is not positive.
    """

    no_weight_decay = ("curvature", "eta_frequencies")

    phi_frequencies: Tensor
    coordinates = (Coordinate("phi", kind="harmonic"), Coordinate("r"), Coordinate("eta"))

    def __init__(
        self,
        head_dim: int,
        num_heads: int,
        min_pt: float = 0.75,
        field: float = 2.0,
        max_phi: float = 200.0,
        max_eta: float = 20.0,
        eta_share: float = 0.4,
    ) -> None:
        super().__init__()
        num_pairs = head_dim // 2
        num_eta = round(eta_share * num_pairs)
        if not 0 < num_eta < num_pairs:
            raise ValueError(
                f"head_dim={head_dim} with eta_share={eta_share} must hold a pair for phi and one "
                "for eta"
            )
        for name, value in (
            ("min_pt", min_pt),
            ("field", field),
            ("max_phi", max_phi),
            ("max_eta", max_eta),
        ):
            if value <= 0:
                raise ValueError(f"{name}={value} must be positive")
        self.max_curvature = CURVATURE_CONSTANT * field / (2 * min_pt)  # in 1/mm
        # In units of the largest one, so that steps of training have a sensible size.
        share = torch.linspace(-1.0, 1.0, num_heads) if num_heads > 1 else torch.zeros(1)
        self.curvature = nn.Parameter(share)  # (H,)
        phi_frequencies = _spread(num_pairs - num_eta, max_phi).round().clamp(min=1)
        self.register_buffer("phi_frequencies", phi_frequencies, persistent=False)  # (P of phi,)
        self.eta_frequencies = nn.Parameter(_spread(num_eta, max_eta).repeat(num_heads, 1))

    def forward(self, x: Tensor) -> Rotation:
        """Find the rotations of a batch, once for all layers, in float32 whatever the autocast.

        Args:
            x: φ, r in mm and η of the hits (B, N, 3).

        Returns:
            Cosines and sines, each (B, H, N, P).
        """
        with torch.autocast(x.device.type, enabled=False):
            phi, r, eta = x.float().unsqueeze(1).unbind(-1)  # (B, 1, N) each
            bend = self.max_curvature * self.curvature.float()[:, None] * r  # (B, H, N)
            start = phi - bend.clamp(-0.99, 0.99).asin()
            turned = (
                start.unsqueeze(-1) * self.phi_frequencies.float(),  # (B, H, N, P of phi)
                eta.unsqueeze(-1) * self.eta_frequencies.float()[:, None],  # (B, H, N, P of eta)
            )
            angle = torch.cat(turned, -1)
            return angle.cos(), angle.sin()


def _spread(num: int, highest: float) -> Tensor:
    """Frequencies of equal ratios up to the highest, over a factor of 50."""
    return torch.logspace(math.log10(highest / 50), math.log10(highest), num)
