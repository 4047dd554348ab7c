"""Positional encodings over physical coordinates."""

# B events, N tokens, C coordinates, D features, W frequencies

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Coordinate:
    """A physical coordinate that says where a token is.

    Args:
        name: Name of the column in the feature list.
        scale: Factor that brings the raw column to order one; angles stay in radians.
        periodic: Whether the coordinate is an angle with period 2π.

    Raises:
        ValueError: If a periodic coordinate is scaled.
    """

    name: str
    scale: float = 1.0
    periodic: bool = False

    def __post_init__(self) -> None:
        if self.periodic and self.scale != 1:
            raise ValueError(
                f"coordinate {self.name}: scale={self.scale} would break its period of 2π; "
                "use scale 1 and the angle in radians"
            )


class SinusoidalEncoding(nn.Module):
    """Sines and cosines of each coordinate at frequencies from coarse to fine.

    A coordinate gets ``[sin ωx, cos ωx]`` with the frequencies
    ``ω = alpha * logspace(0, 2/d - 1, d/2, base)``; a periodic one
    ``[sin(ω sin φ), sin(ω cos φ)]``, which does not jump at φ = ±π. The D features are shared
    evenly by the coordinates; what does not divide stays zero.

    Args:
        dim: Number of features D.
        coordinates: The coordinates, in the order of the input.
        alpha: Highest frequency, per unit of the scaled coordinate.
        base: Ratio between the highest and (nearly) the lowest frequency.

    Raises:
        ValueError: If there is no coordinate or fewer than two features for each.
    """

    frequencies: Tensor
    scale: Tensor
    periodic: Tensor

    def __init__(
        self,
        dim: int,
        coordinates: Sequence[Coordinate],
        alpha: float = 1000.0,
        base: float = 100.0,
    ) -> None:
        super().__init__()
        if not coordinates or dim < 2 * len(coordinates):
            raise ValueError(
                f"dim={dim} must hold two features for each of {len(coordinates)} coordinates, "
                "of which there must be at least one"
            )
        self.dim = dim
        num_frequencies = dim // len(coordinates) // 2
        exponents = torch.linspace(0, 1 / num_frequencies - 1, num_frequencies)  # 2/d = 1/W
        self.register_buffer("frequencies", alpha * base**exponents, persistent=False)
        scale = torch.tensor([coordinate.scale for coordinate in coordinates])
        periodic = torch.tensor([coordinate.periodic for coordinate in coordinates])
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("periodic", periodic.unsqueeze(-1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Encode the coordinates, in float32 whatever the autocast.

        Args:
            x: Raw coordinates (B, N, C).

        Returns:
            (B, N, D)
        """
        with torch.autocast(x.device.type, enabled=False):
            x = (x.float() * self.scale).unsqueeze(-1)  # (B, N, C, 1)
            angle = self.frequencies * torch.where(self.periodic, x.sin(), x)  # (B, N, C, W)
            other = self.frequencies * torch.where(self.periodic, x.cos(), x)
            other = torch.where(self.periodic, other.sin(), other.cos())
            encoding = torch.cat([angle.sin(), other], -1).flatten(2)  # (B, N, C * 2W)
            return nn.functional.pad(encoding, (0, self.dim - encoding.shape[-1]))  # (B, N, D)
