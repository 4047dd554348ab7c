"""Positional encodings over physical coordinates, and of tokens that have identities."""

# B events, N tokens, C coordinates, D features, W frequencies

import math
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


def log_spaced(num: int, alpha: float, base: float) -> Tensor:
    """Space frequencies evenly in their logarithm, from ``alpha`` down to nearly ``alpha / base``.

    Returns:
        ``alpha * base ** (-i / num)`` for i = 0 to num - 1, (num,).
    """
    return alpha * base ** torch.linspace(0, 1 / num - 1, num)


def query_angles(num_queries: int, start: float = 0.0) -> Tensor:
    """Spread object queries evenly over the circle.

    Args:
        num_queries: Number of queries M.
        start: Angle of the first query. Where the keys are sorted by an angle in [-π, π) and
            windows are centred evenly along them, -π puts each query at its window's angle.

    Returns:
        ``start + 2π i / M`` (M,), in radians.
    """
    return start + torch.arange(num_queries) * (2 * math.pi / num_queries)


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
        self.coordinates = tuple(coordinates)
        open_frequencies = log_spaced(dim // len(coordinates) // 2, alpha, base)  # (W,)
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
            x = (x.float() * self.scale.float()).unsqueeze(-1)  # (B, N, C, 1)
            frequencies = self.frequencies.float()
            first = frequencies * torch.where(self.circle, x.sin(), x)  # (B, N, C, W)
            second = frequencies * torch.where(self.circle, x.cos(), x)
            second = torch.where(self.circle, second.sin(), second.cos())
            encoding = torch.cat([first.sin(), second], -1).flatten(2)  # (B, N, C * 2W)
            return nn.functional.pad(encoding, (0, self.dim - encoding.shape[-1]))  # (B, N, D)


class FourierEncoding(nn.Module):
    """Sines and cosines of random directions in the space of all coordinates together.

    ``[sin θ, cos θ]`` with θ = 2π B x and the entries of B drawn from N(0, sigma²)
    (arXiv:2006.10739), so that the dot product of two encodings is a function of how far apart
    they are, smooth over distances of about 1 / (2π sigma). Angles stay periodic: ``circle`` puts
    (cos φ, sin φ) in the place of x; ``harmonic`` takes φ times 2π B rounded to a whole number, so
    that dot products depend on differences of angles only. The draw is part of the checkpoint. A
    feature that is left over when D is odd stays zero.

    Args:
        dim: Number of features D.
        coordinates: The coordinates, in the order of the input.
        sigma: Spread of the frequencies, in turns per unit of the scaled coordinate.

    Raises:
        ValueError: If there is no coordinate, fewer than two features, or ``sigma`` is not
            positive.
    """

    frequencies: Tensor
    scale: Tensor

    def __init__(self, dim: int, coordinates: Sequence[Coordinate], sigma: float = 1.0) -> None:
        super().__init__()
        if not coordinates or dim < 2:
            raise ValueError(
                f"dim={dim} must be at least 2, for at least one coordinate, of which there are "
                f"{len(coordinates)}"
            )
        if sigma <= 0:
            raise ValueError(f"sigma={sigma} must be positive")
        self.dim = dim
        self.coordinates = tuple(coordinates)
        kinds = [coordinate.kind for coordinate in coordinates]
        self.circles = [index for index, kind in enumerate(kinds) if kind == "circle"]
        self.lines = [index for index, kind in enumerate(kinds) if kind != "circle"]
        num_inputs = len(self.lines) + 2 * len(self.circles)  # I
        frequencies = 2 * math.pi * sigma * torch.randn(num_inputs, dim // 2)  # (I, W)
        for row, index in enumerate(self.lines):
            if kinds[index] == "harmonic":
                frequencies[row].round_()
        scale = torch.tensor([coordinate.scale for coordinate in coordinates])
        self.register_buffer("frequencies", frequencies)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Encode the coordinates, in float32 whatever the autocast.

        Args:
            x: Raw coordinates (B, N, C).

        Returns:
            (B, N, D)
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.float() * self.scale.float()  # (B, N, C)
            circles = x[..., self.circles]
            inputs = torch.cat([x[..., self.lines], circles.cos(), circles.sin()], -1)  # (B, N, I)
            phase = inputs @ self.frequencies.float()  # (B, N, W)
            encoding = torch.cat([phase.sin(), phase.cos()], -1)  # (B, N, 2W)
            return nn.functional.pad(encoding, (0, self.dim - encoding.shape[-1]))  # (B, N, D)


class LearnedEncoding(nn.Module):
    """One learned vector for each slot, for sets whose tokens have identities.

    Sensors of a detector are such a set; hits, particles and whatever else comes in an arbitrary
    order are not.

    Args:
        dim: Number of features D.
        num_tokens: Number of slots.
    """

    no_weight_decay = ("vectors",)
    coordinates: tuple[Coordinate, ...] = ()

    def __init__(self, dim: int, num_tokens: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.02 * torch.randn(num_tokens, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Hand out the vectors.

        Args:
            x: Anything with a token dimension (B, N, ...), such as no coordinates (B, N, 0).

        Returns:
            (B, N, D)

        Raises:
            ValueError: If there are more tokens than vectors.
        """
        num_tokens = len(self.vectors)
        if x.shape[1] > num_tokens:
            raise ValueError(
                f"{x.shape[1]} tokens came, the encoding has learned num_tokens={num_tokens}; "
                "tokens without identities need an encoding of their coordinates"
            )
        return self.vectors[: x.shape[1]].expand(x.shape[0], -1, -1)  # (B, N, D)
