"""Positional encodings over physical coordinates."""

# B events, N tokens, C coordinates, D features, W frequencies

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Coordinate:
    """A physical coordinate that says where a token is.

    Args:
        name: Name of the column in the feature list.
        scale: Factor that brings the raw column to order one; angles stay in radians.
        kind: ``open`` for a coordinate without period. For an angle with period 2π: ``circle``
            encodes the point on the unit circle, ``harmonic`` the angle itself at whole
            frequencies, so that dot products of encodings depend on differences of angles only.

    Raises:
        ValueError: If an angle is scaled.
    """

    name: str
    scale: float = 1.0
    kind: Literal["open", "circle", "harmonic"] = "open"

    def __post_init__(self) -> None:
        if self.kind != "open" and self.scale != 1:
            raise ValueError(
                f"coordinate {self.name}: scale={self.scale} would break its period of 2π; "
                "use scale 1 and the angle in radians"
            )


class SinusoidalEncoding(nn.Module):
    """Sines and cosines of each coordinate at frequencies from coarse to fine.

    A coordinate gets ``[sin ωx, cos ωx]`` with the frequencies
    ``ω = alpha * logspace(0, 2/d - 1, d/2, base)``. Neither form for angles jumps at φ = ±π:
    ``circle`` is ``[sin(ω sin φ), sin(ω cos φ)]``, ``harmonic`` is ``[sin kφ, cos kφ]`` with each
    ω rounded to a whole k ≥ 1. The D features are shared evenly by the coordinates; what does not
    divide stays zero.

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
    circle: Tensor

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
        open_frequencies = alpha * base**exponents  # (W,)
        harmonics = open_frequencies.round().clamp(min=1)
        frequencies = [
            harmonics if coordinate.kind == "harmonic" else open_frequencies
            for coordinate in coordinates
        ]
        scale = torch.tensor([coordinate.scale for coordinate in coordinates])
        circle = torch.tensor([coordinate.kind == "circle" for coordinate in coordinates])
        self.register_buffer("frequencies", torch.stack(frequencies), persistent=False)  # (C, W)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("circle", circle.unsqueeze(-1), persistent=False)  # (C, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Encode the coordinates, in float32 whatever the autocast.

        Args:
            x: Raw coordinates (B, N, C).

        Returns:
            (B, N, D)
        """
        with torch.autocast(x.device.type, enabled=False):
            x = (x.float() * self.scale).unsqueeze(-1)  # (B, N, C, 1)
            first = self.frequencies * torch.where(self.circle, x.sin(), x)  # (B, N, C, W)
            second = self.frequencies * torch.where(self.circle, x.cos(), x)
            second = torch.where(self.circle, second.sin(), second.cos())
            encoding = torch.cat([first.sin(), second], -1).flatten(2)  # (B, N, C * 2W)
            return nn.functional.pad(encoding, (0, self.dim - encoding.shape[-1]))  # (B, N, D)
